"""The console script ``lockkit``: the beginning and the end of its process, which take a fifth of a short run if they are left to Python."""

from __future__ import annotations

import atexit
import gc
import os
import sys

__all__ = ["main"]


def main() -> None:
    """``lockkit ...``. See :func:`lockkit.cli.main.main`. The process ends in this call, so only a script calls it."""
    # Before click is imported: the collector finds nothing in modules, while they load or at exit, and takes 20 of 120 ms.
    gc.set_threshold(50_000)
    from lockkit.cli.main import main as run

    try:
        run()
    except SystemExit as end:
        # In development mode the interpreter warns of files that are still open.
        if isinstance(end.code, int) and not sys.flags.dev_mode:
            _end(end.code)
        raise


def _end(code: int) -> None:
    """End this process as the interpreter would, but leave its memory to the kernel: freeing each object takes 6 of 100 ms.

    All that the interpreter does before is done: threads that are no daemons have ended, the functions of :mod:`atexit` have run, and
    the output is written. If an exception (Ctrl-C) cuts that short, the call returns, and the interpreter ends the process.
    """
    import threading

    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 (as multiprocessing does)
        atexit._run_exitfuncs()  # noqa: SLF001
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        return
    os._exit(code)
