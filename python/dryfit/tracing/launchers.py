"""Programs that start a training script: what they would start in processes of its own runs in this one, as the first of them, with the environment that they give it."""
from __future__ import annotations

import importlib.metadata
import os
import runpy
import sys

import torch


def install(world):
    """world(n): a launcher starts n processes. torch's own, by which accelerate, TRL and torchtune start theirs; accelerate's for one process where it comes to be imported."""
    import torch.distributed.run as elastic

    def run(arguments):
        here = torch.cuda.device_count() if not str(arguments.nproc_per_node).isdigit() else int(arguments.nproc_per_node)
        world(here * int(str(arguments.nnodes).rpartition(":")[2]))
        script([*(["-m"] if arguments.module else []), arguments.training_script, *arguments.training_script_args])
    elastic.run = run


def script(words):
    """Runs `train.py --flag` or `-m package.module --flag` as Python would."""
    module = words[0] == "-m"
    sys.argv = words[1:] if module else list(words)
    sys.path.insert(0, os.getcwd() if module else os.path.dirname(os.path.abspath(words[0])))
    if module:
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(words[0], run_name="__main__")


def program(words):
    """An installed program's entry point, with its words."""
    name = os.path.basename(words[0])
    found = [e for e in importlib.metadata.entry_points(group="console_scripts") if e.name == name]
    if not found:
        raise ModuleNotFoundError(f"No program '{words[0]}' is installed")
    if name in ("accelerate", "trl"):
        _alone()
    sys.argv = list(words)
    found[0].load()()


def _alone():
    """accelerate's launcher of a single process: that is this one."""
    from accelerate.commands import launch

    def simple_launcher(arguments):
        command, environment = launch.prepare_simple_launcher_cmd_env(arguments)
        os.environ.update({key: value for key, value in environment.items() if isinstance(value, str)})
        words = command[1:] if os.path.basename(command[0]).startswith("python") else command
        script([word for word in words if word != "-u"])
    launch.simple_launcher = simple_launcher
