"""Programs that a test starts, and that are gone when it is over."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["programs"]


@contextmanager
def programs(**usual: Any) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that starts a program, called with its words; all that it has started is killed at the end.

    Args:
        usual: Keywords for ``subprocess.Popen``; those of a call win. Standard output is read as text.
    """
    running: list[subprocess.Popen[str]] = []

    def start(*words: str, **options: Any) -> subprocess.Popen[str]:
        chosen = {"stdout": subprocess.PIPE, **usual, **options}
        process = subprocess.Popen(words, text=True, **chosen)
        running.append(process)
        return process

    try:
        yield start
    finally:
        for process in running:
            process.kill()
            process.communicate()
