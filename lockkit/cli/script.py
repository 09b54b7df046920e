"""The console script ``lockkit``: it has the garbage collector wait while the command line is imported."""

from __future__ import annotations

import gc
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """``lockkit ...``. See :func:`lockkit.cli.main.main`."""
    # The collector finds nothing in modules, while they load or at exit, and takes 20 of 120 ms.
    gc.set_threshold(50_000)
    from lockkit.cli.main import main as run

    run()
