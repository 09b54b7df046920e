"""Ctrl-C, or another exception, at a chosen place in the code, as from a signal handler that raises."""

from __future__ import annotations

import dis
import gc
import sys
import weakref
from collections.abc import Callable, Sequence
from itertools import islice, zip_longest
from random import Random
from types import CodeType, FrameType
from typing import Any

__all__ = ["Bomb", "CtrlC"]

_LOOKS = frozenset(
    number
    for number, name in enumerate(dis.opname)
    # Not after a turn of a waiting ``await``: the coroutine it awaits would be left as it is, never closed.
    if name.startswith(("CALL", "JUMP_BACKWARD", "POP_JUMP_BACKWARD")) and not name.endswith("_NO_INTERRUPT")
)
"""The instructions after which CPython looks for signals."""
_AFTER_YIELD_FROM = 2
"""The smallest argument of a RESUME after which CPython ignores signals; below are starts and ``yield``."""


class CtrlC(KeyboardInterrupt):
    """The Ctrl-C of a scenario. The class distinguishes it from a user who wants to end the test run."""


class Bomb:
    """A context manager that raises Ctrl-C at the n-th place in lockkit where CPython handles signals.

    Stores and ``beside`` count as lockkit. CPython handles signals when a Python function starts, when a
    generator resumes after a ``yield``, after a call of something that is not a Python function, and before
    a jump backwards. An exception after a call is raised at the call, here too: the call's exception
    handlers handle this one, and a ``with`` that was entered is always left.

    Args:
        at: The number of the place, counted from 1.
        then: The number of further places after which Ctrl-C is raised once more; 0 for never.
        beside: Further modules, in addition to lockkit and the stores, in which Ctrl-C is raised.
        error: The class of the exception that is raised in place of Ctrl-C.

    Attributes:
        seen: The number of places so far.
        where: The place at which Ctrl-C was raised; empty if it was not.
        again: The place at which it was raised for the second time.
        raised: Weak references to the raised exceptions. If one lives on with the cyclic garbage
            collector off, something keeps the exception, its frames and what they refer to.
    """

    def __init__(
        self,
        at: int,
        then: int = 0,
        beside: tuple[str, ...] = (),
        error: Callable[[], BaseException] = CtrlC,
    ) -> None:
        self._beside = beside
        self._error = error
        self._left = at
        self._then = then
        self._looks: dict[FrameType, bool] = {}  # whether CPython looks before a frame's next instruction
        self._known: dict[object, bool] = {}  # modules: this runs at each instruction, so all is looked up
        self._functions = (self._trace, self._profile)  # kept: CPython 3.11 calls what it has just let go
        self.seen = 0
        self.where = ""
        self.again = ""
        self.raised: list[weakref.ref[BaseException]] = []
        self._met: list[tuple[CodeType, int]] = []

    def places(self, most: int, chance: Random) -> Sequence[int]:
        """The numbers of the places so far, or a choice of ``most`` of them.

        A place in a loop has many numbers. The choice takes one of each place, then a second one, and so on.
        """
        if self.seen <= most:
            return range(1, self.seen + 1)
        numbers: dict[tuple[CodeType, int], list[int]] = {}
        for number, place in enumerate(self._met, 1):
            numbers.setdefault(place, []).append(number)
        turns = chance.sample(list(numbers.values()), len(numbers))
        for turn in turns:
            chance.shuffle(turn)
        rounds = zip_longest(*turns)
        return sorted(islice((number for each in rounds for number in each if number is not None), most))

    def within(self, function: Callable[..., object]) -> Sequence[int]:
        """The numbers of the places so far that are in one function."""
        code = getattr(function, "__code__", None)
        return [number for number, (each, _) in enumerate(self._met, 1) if each is code]

    def __enter__(self) -> Bomb:
        self._collects = gc.isenabled()
        gc.disable()  # finalizers of other objects have places, too, and are not asked for
        self._arm()
        return self

    def __exit__(self, *_: object) -> None:
        self._left = 0
        sys.settrace(None)
        sys.setprofile(None)
        self._looks.clear()
        if self._collects:
            gc.enable()

    # An exception in either kind of function makes the interpreter forget that one; the other arms it again.

    def _arm(self) -> None:
        sys.settrace(self._functions[0])
        sys.setprofile(self._functions[1])

    def _place(self, frame: FrameType) -> None:
        if self._left <= 0:
            return
        self.seen += 1
        self._met.append((frame.f_code, frame.f_lasti))
        self._left -= 1
        if self._left > 0:
            return
        where = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
        if not self.where:
            self.where = where
            self._left = self._then
        else:
            self.again = where
        self.strike()

    def strike(self) -> None:
        """Raise the exception. A test may replace this by what a signal handler does without raising."""
        raise self._another()  # no variable here refers to it: its traceback refers to this frame

    def _another(self) -> BaseException:
        error = self._error()
        self.raised.append(weakref.ref(error))
        return error

    def _profile(self, frame: FrameType, event: str, arg: object) -> None:  # noqa: ARG002
        if sys.gettrace() is None and self._left > 0:
            sys.settrace(self._functions[0])
        if event == "c_return" and self._ours(frame):
            self._looks[frame] = False  # this is its place
            self._place(frame)

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:  # noqa: ARG002
        if sys.getprofile() is None and self._left > 0:
            sys.setprofile(self._functions[1])
        if event == "call":
            if frame.f_back is not None:
                self._looks[frame.f_back] = False  # after a call of a Python function it does not look
            if not self._ours(frame):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            if _begins(frame):
                self._place(frame)
        elif event == "opcode":
            looks = self._looks.get(frame, False)
            self._looks[frame] = frame.f_code.co_code[frame.f_lasti] in _LOOKS
            if looks:
                self._place(frame)
        elif event == "exception":
            self._looks[frame] = False  # an instruction that raises does not look
        return self._functions[0]

    def _ours(self, frame: FrameType) -> bool:
        name = frame.f_globals.get("__name__")
        known = self._known.get(name)
        if known is None:
            ours = isinstance(name, str) and (name.startswith("lockkit") or name in self._beside)
            known = self._known[name] = ours and not str(name).startswith("lockkit.testing")
        return known


def _begins(frame: FrameType) -> bool:
    """Whether CPython handles signals where this frame begins, or goes on after a ``yield``.

    CPython does not where an exception is thrown into a generator, or where ``yield from`` or ``await``
    resumes one. A trace function that raises there would end the generator without ``with`` and ``finally``.
    """
    code, at = frame.f_code.co_code, frame.f_lasti
    return dis.opname[code[at]] == "RESUME" and code[at + 1] & 3 < _AFTER_YIELD_FROM
