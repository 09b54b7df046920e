"""The console script ``lockkit``: it imports the command line in less time than a program would, which matters to ``lockkit run``."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import NoReturn

__all__ = ["main", "putting_off"]

_UNUSED = ("ipaddress", "textwrap", "tokenize")
"""Modules that click and the standard library import at their beginning, and that few commands use. They take 3 of 100 ms."""


class _PutOff(ModuleType):
    """A module in the place of another one, which is imported when the first of its names is looked up."""

    def __getattr__(self, name: str) -> object:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


@contextmanager
def putting_off(names: tuple[str, ...]) -> Iterator[None]:
    """Put off the import of these modules for whoever imports them in the block. After it they are imported as ever."""
    stand_ins = {name: _PutOff(name) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


def main() -> NoReturn:
    """``lockkit ...``. See :func:`lockkit.cli.main.main`."""
    # The collector finds nothing in modules, while they load or at exit, and takes 20 of 120 ms.
    gc.set_threshold(50_000)
    with putting_off(_UNUSED):
        from lockkit.cli.main import main as run

    run()
