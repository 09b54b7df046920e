"""The place in the user's program that called lockkit, for warnings about dropped leases and open clients."""

from __future__ import annotations

import contextlib
import sys
from types import CodeType
from typing import TypeAlias

__all__ = ["Caller", "caller", "place", "shown"]

Caller: TypeAlias = tuple[CodeType, int]
"""Code and an instruction in it."""
_PASSED = (__file__.removesuffix("lib/caller.py"), contextlib.ExitStack.enter_context.__code__.co_filename)
"""The beginnings of files passed over: this package, and contextlib, whose ExitStack enters users' locks."""


_last: Caller = contextlib.ExitStack.enter_context.__code__, 0
"""The place returned last, which a thousand waiters that come from the same one share."""


def caller() -> Caller:
    """Code and instruction of the nearest caller outside this package and contextlib; keeps no frame."""
    # place() computes the source line when a warning needs it: f_lineno takes as long as the rest here.
    frame = sys._getframe(2)  # noqa: SLF001 (as warnings does); the two nearer frames are always lockkit's
    while frame.f_code.co_filename.startswith(_PASSED) and frame.f_back is not None:
        frame = frame.f_back
    global _last  # noqa: PLW0603
    code, at, last = frame.f_code, frame.f_lasti, _last
    if last[0] is not code or last[1] != at:
        last = _last = code, at
    return last


def place(caller: Caller) -> tuple[str, int]:
    """The file and source line of a place that :func:`caller` returned."""
    code, instruction = caller
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return code.co_filename, line
    return code.co_filename, code.co_firstlineno


def shown(caller: Caller | None) -> str:
    """A place as people read it, ``/srv/jobs.py:12``; empty if there is none."""
    return "" if caller is None else ":".join(map(str, place(caller)))
