"""A signal handler that does something, at a chosen place of lockkit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

from lockkit.testing.interrupts import Bomb

__all__ = ["Handler"]


class Handler(Bomb):
    """Calls something at the n-th place of lockkit, or of one of its functions, in place of raising.

    Args:
        at: The place, counted from 1; 0 for none, to count them.
        call: What the handler does.
        function: Count only the places in functions of this name.
        file: The end of the name of the file that they are in.
        beside: See :class:`~lockkit.testing.interrupts.Bomb`.
    """

    def __init__(
        self,
        at: int,
        call: Callable[[], object],
        function: str = "",
        file: str = "",
        beside: tuple[str, ...] = (),
    ) -> None:
        super().__init__(1 << 30, beside=beside)
        self._at, self._call, self._function, self._file = at, call, function, file

    def _place(self, frame: FrameType) -> None:
        code = frame.f_code
        if self._function not in ("", code.co_name) or not code.co_filename.endswith(self._file):
            return
        self.seen += 1
        if self.seen == self._at:
            self._left = 0
            sys.settrace(None)
            sys.setprofile(None)
            self.where = code.co_name
            self._call()
