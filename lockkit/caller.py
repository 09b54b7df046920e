"""The place in the user's program from which lockkit was called, for warnings about what was never released or closed."""

from __future__ import annotations

import sys
from types import CodeType
from typing import TypeAlias

__all__ = ["Caller", "caller", "place"]

Caller: TypeAlias = tuple[CodeType, int]
"""Code and an instruction in it."""
_PACKAGE = __file__.removesuffix("caller.py")


def caller() -> Caller:
    """Code and instruction of the nearest caller outside this package, for the ResourceWarning."""
    # The line is computed only when it is needed: f_lineno takes as long as all the rest of this function.
    frame = sys._getframe(2)  # noqa: SLF001 (as the warnings module does); nearer are only our own
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


def place(caller: Caller) -> tuple[str, int]:
    """File and line of a :func:`caller`."""
    code, instruction = caller
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return code.co_filename, line
    return code.co_filename, code.co_firstlineno
