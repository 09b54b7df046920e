"""``lockkit run --metrics-textfile``: a file for node_exporter, written on a thread as disks may be slow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lockkit.observe.exposition import render, write
from lockkit.observe.lock_labels import LockLabels
from lockkit.observe.run_metrics import RunMetrics, earlier

if TYPE_CHECKING:
    from lockkit.config.config import Config

__all__ = ["Textfile"]

_EVERY = 20.0
"""Seconds between two writings: a third of the usual ttl of a ``run``, so about one for each renewal."""
_PATIENCE = 2.0
"""Seconds that the end of a run waits for a disk."""


class Textfile:
    """The metrics of a run in a file, from start to end. Reports a failed write once, and goes on.

    The name of ``path`` without ``.prom`` is the label ``run``.
    """

    def __init__(self, path: str, names: Sequence[str], tell: Callable[[str], None]) -> None:
        self._path = Path(path)
        self._metrics = RunMetrics(self._path.name.removesuffix(".prom"), names)
        self._tell = tell
        self._told = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def configured(self, config: Config) -> None:
        """Take the labels of locks from the configuration, and begin to write."""
        self._metrics.labelled(LockLabels.of(config))
        self._begin()

    def named(self, name: str) -> None:
        """Take the name of what is asked for, if only the configuration has it."""
        self._metrics.named(name)

    def acquired(self, names: Sequence[str] = ()) -> None:
        """Note that the command is about to run.

        Args:
            names: The locks that were got; none if all that were asked for.
        """
        self._metrics.acquired(names)

    def released(self) -> None:
        """Note that the lock is given back."""
        self._metrics.released()

    def close(self, code: int) -> None:
        """Write the end of the run. Waits for the disk, but not for long."""
        self._metrics.ended(code)
        self._over.set()
        thread = self._thread or self._begin()
        if thread is None:
            self._write()
            return
        thread.join(_PATIENCE)
        if thread.is_alive():
            self._fail("the disk does not answer")

    def _begin(self) -> threading.Thread | None:
        thread = threading.Thread(target=self._keep, name="lockkit-textfile", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads: the end alone is written
            return None
        self._thread = thread
        return thread

    def _keep(self) -> None:
        while True:
            over = self._over.is_set()
            self._write()
            if over:
                return
            self._over.wait(_EVERY)

    def _write(self) -> None:
        try:
            write(self._path, render(self._metrics.samples(earlier(self._path))))
        except OSError as error:
            self._fail(error.strerror or str(error))

    def _fail(self, why: str) -> None:
        if not self._told:
            self._told = True
            self._tell(f"cannot write the metrics {self._path}: {why}")
