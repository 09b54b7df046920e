"""Event loops in synchronous programs: a warning for an acquire that blocks one; refusal of coroutines."""

from __future__ import annotations

import sys
from functools import partial
from types import FrameType

from lockkit.lib.caller import Caller, shown
from lockkit.lib.printable import printable

__all__ = ["is_coroutine_function", "warn_of_loop"]

_COROUTINES = 0x80 | 0x200
"""The code flags ``inspect.CO_COROUTINE`` and ``inspect.CO_ASYNC_GENERATOR``."""
_NOTEBOOKS = ("IPython", "ipykernel")
_told: list[str] = []


def warn_of_loop(name: str, caller: Caller) -> None:
    """Warn that a call holds up the event loop of its thread; once in a process.

    A notebook's cell runs in an event loop too, but that is the notebook's own, which every cell blocks that
    is not asynchronous itself.

    Args:
        name: The lock.
        caller: The place of the call.
    """
    if _told or _in_a_cell(sys._getframe(1)):  # noqa: SLF001 (as the warnings module does)
        return
    import logging  # late: with an event loop it is there

    _told.append(name)
    logging.getLogger("lockkit").warning(
        "%s",
        printable(
            f"the acquire of {name!r} at {shown(caller)} runs in an event loop, which stands still until the "
            "lock is held: use lockkit.aio.connect(), and await the acquire; see: lockkit docs asyncio"
        ),
    )


def is_coroutine_function(function: object) -> bool:
    """Whether calling a function returns a coroutine or asynchronous generator, with its work undone."""
    while isinstance(function, partial):
        function = function.func
    code = getattr(function, "__code__", None)
    return bool(code is not None and code.co_flags & _COROUTINES)


def _in_a_cell(frame: FrameType | None) -> bool:
    """Whether the innermost coroutine of a stack is a notebook's, so that the code it runs is synchronous."""
    while frame is not None:
        if frame.f_code.co_flags & _COROUTINES:
            return str(frame.f_globals.get("__name__")).partition(".")[0] in _NOTEBOOKS
        frame = frame.f_back
    return False
