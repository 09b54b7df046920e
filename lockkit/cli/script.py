"""The console script ``lockkit``. It imports the command line quickly, which matters to ``lockkit run``."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import NoReturn

__all__ = ["main", "putting_off"]

_UNUSED: Mapping[str, tuple[str, ...]] = {
    "fnmatch": (),
    "gettext": ("gettext", "ngettext"),
    "inspect": (),
    "ipaddress": (),
    "ntpath": (),
    "textwrap": (),
    "tokenize": (),
    "uuid": ("UUID",),
}
"""Modules that click and the standard library import and few commands use, with names imported *from* them.

They execute a seventh of the instructions of a short ``lockkit run``.
"""


class _PutOff(ModuleType):
    """A module in the place of another one, which is imported when the first of its names is looked up.

    Functions and classes imported *from* it are put off as well: calling one imports the module.
    """

    def __init__(self, name: str, called: tuple[str, ...]) -> None:
        super().__init__(name)
        self._called = called

    def __getattr__(self, name: str) -> object:
        if sys.modules.get(self.__name__) is self:
            if name in self._called:
                return partial(_call, self.__name__, name)
            if name == "__path__":  # the import system asks whether this is a package
                raise AttributeError(name)
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def _call(module: str, name: str, *args: object) -> object:
    return getattr(import_module(module), name)(*args)


@contextmanager
def putting_off(modules: Mapping[str, tuple[str, ...]]) -> Iterator[None]:
    """Put off imports of these modules in the block. After it they are imported as ever.

    Args:
        modules: The modules, each with the functions and classes that are put off if imported by name.
    """
    stand_ins = {name: _PutOff(name, called) for name, called in modules.items() if name not in sys.modules}
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
    try:
        with putting_off(_UNUSED):
            from lockkit.cli.main import main as run
    except KeyboardInterrupt:  # Ctrl-C before there is anything to end
        sys.exit(130)
    run()
