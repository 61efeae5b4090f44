"""One request to the engine, and the error it may answer with."""
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from dryfit import _engine


class Error(ValueError):
    """What was asked cannot be answered. `code` is stable, `hint` says the way out, `where` names the place; status 2: bad input, 70: internal."""

    def __init__(self, code: str, message: str, hint: str, where: str, status: int) -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.code, self.message, self.hint, self.where, self.status = code, message, hint, where, status


class Reply(NamedTuple):
    """A request's answer as it is. status: 0 fits, 1 does not, 2 bad input, 70 internal; json: the bytes that the command line prints, as text."""

    status: int
    json: str


def call(request: Mapping[str, Any]) -> Reply:
    """Any command at all: a request as docs/machines.md describes it, {"command": "check", "args": {"depth": 26}}. Touches nothing of this machine
    unless it says "local": true. Never raises for what the engine refuses: the reply is then its error."""
    status, body = _engine.call(json.dumps(request))
    return Reply(status, body.decode(errors="replace"))
