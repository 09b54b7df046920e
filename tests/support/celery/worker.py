"""A Celery worker as a process of its own, as ``celery worker`` starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.celery.stage import PATIENCE

__all__ = ["Worker"]

_TESTS = Path(__file__).resolve().parents[2]


class Worker:
    """One worker; a context manager that kills it, with all that it has started, and keeps its log.

    Args:
        app: The module of its Celery application.
        folder: Where its log goes.
        environ: Further environment variables; the application reads its URLs from there.
        pool: The kind of its pool.
        concurrency: The number of its processes or threads.
        options: Further words of the command line.
    """

    _made = 0

    def __init__(
        self,
        app: str,
        folder: Path,
        environ: Mapping[str, str],
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        options: Sequence[str] = (),
    ) -> None:
        Worker._made += 1
        self.name = f"w{Worker._made}x{os.getpid()}"
        self.log = folder / f"{self.name}.log"
        self.ready_file = folder / f"{self.name}.ready"
        paths = [str(_TESTS), os.environ.get("PYTHONPATH", "")]
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "READY_FILE": str(self.ready_file),
            **environ,
        }
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "INFO", "-P", pool]
        command += ["-c", str(concurrency), "-n", self.name, "--without-gossip", "--without-mingle", *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """The pid of its main process."""
        return self.process.pid

    @property
    def nodename(self) -> str:
        """The name by which others know it: remote control, and the owners of its claims."""
        return f"celery@{self.name}"

    @property
    def words(self) -> str:
        """Everything that it has logged."""
        return self.log.read_text(errors="replace")

    def until_ready(self, patience: float = 2 * PATIENCE) -> Self:
        """Wait until it takes tasks.

        Raises:
            AssertionError: The worker has ended, or is not ready in time; says what it has logged.
        """
        self._until(self.ready_file.exists, "is not ready", patience)
        return self

    def until_logged(self, text: str, patience: float = PATIENCE) -> str:
        """Wait until it has logged a text. Returns the log."""
        self._until(lambda: text in self.words, f"has not logged {text!r}", patience)
        return self.words

    def signal(self, number: int) -> None:
        """Send its main process a signal."""
        self.process.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait until its main process has ended. Returns the exit code."""
        return self.process.wait(patience)

    def kill(self) -> None:
        """Kill it with all that it has started in its session."""
        if self.process.poll() is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(PATIENCE)

    def _until(self, came: object, what: str, patience: float) -> None:
        assert callable(came)
        end = time.monotonic() + patience
        while not came():
            assert self.process.poll() is None or came(), f"the worker has ended:\n{self.words}"
            assert time.monotonic() < end, f"the worker {what} after {patience} s:\n{self.words}"
            time.sleep(0.02)
