"""A process that sleeps, for tests that look at a process by its name."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from lockkit.observe.survivors import program
from lockkit.testing.processes import until

__all__ = ["sleeping"]


@contextlib.contextmanager
def sleeping(user: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``sleep`` while the ``with`` statement lasts, as the kernel shows it.

    Popen returns when exec(2) has closed its descriptors. The kernel names the process after the program a
    little later (begin_new_exec in fs/exec.c).
    """
    with subprocess.Popen(["sleep", "60"], user=user) as process:
        try:
            until(lambda: program(process.pid) == "sleep")
            yield process
        finally:
            process.kill()
