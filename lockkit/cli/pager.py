"""A pager for long texts on a terminal, chosen and run as git does it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

__all__ = ["show"]

_NOT_RUN = (126, 127)


def show(text: str) -> None:
    """Write a text to standard output; on a terminal through ``$PAGER``, or less, which ends if it fits."""
    pager = os.environ.get("PAGER", "less" if shutil.which("less") else "")
    plain = not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb"
    if plain or pager in ("", "cat") or not _paged(text, pager):
        sys.stdout.write(text)
        sys.stdout.flush()


def _paged(text: str, pager: str) -> bool:
    """Whether the pager could be run."""
    # Ctrl-C is for the pager. A handler is not inherited by it, unlike SIG_IGN.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        environ = {"LESS": "FRX", "LV": "-c", **os.environ}
        done = subprocess.run(pager, shell=True, input=text.encode(), env=environ, check=False)  # noqa: S602 (PAGER is a shell command)
    finally:
        signal.signal(signal.SIGINT, before)
    return done.returncode not in _NOT_RUN
