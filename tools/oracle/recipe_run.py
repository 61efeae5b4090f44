"""What recordings of a framework's own training loop share: a tracker whose segments are marked from inside that loop, around the functions it calls."""
from torch._subclasses.fake_tensor import FakeTensorMode

import hopper  # noqa: F401  (before anything asks torch.cuda)
from compiled import Compiled
from dryfit.tracing.tracker import Tracker


class RecipeRun:
    """The state of one training process of two optimizer steps. `tracker` holds what was recorded."""

    def __init__(self, case):
        self.case = case
        self.fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.tracker = Tracker()
        self.step, self.micro = "first_step", 0

    def mark(self, part):
        self.tracker.mark(f"{self.step} {self.micro} {part}" if part in ("data", "forward", "backward") else f"{self.step} {part}")

    def marked(self, part, function):
        def call(*args, **kwargs):
            self.mark(part)
            return function(*args, **kwargs)
        return call

    def compiled(self, function):
        return Compiled(function, self.fake_mode, self.tracker, fullgraph=True)
