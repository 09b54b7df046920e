"""The metrics of forked workers, also where one of them has left a file that cannot be read.

A worker that ends by ``os._exit``, or is killed, just when ``prometheus_client`` makes a file leaves an empty
one. Then its ``MultiProcessCollector`` raises at each scrape, for all workers::

    registry = CollectorRegistry()
    lockkit.observe.workers.WorkerCollector(registry)
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from lockkit.observe.instruments import METRICS

__all__ = ["WorkerCollector", "remove_empty"]

UNREADABLE = "lockkit_metrics_files_unreadable"
_merge: Any = MultiProcessCollector.merge
_read_all: Any = MmapedDict.read_all_values_from_file
_FILE = re.compile(r"(?:counter|histogram|summary|gauge_[a-z]+)_([0-9]{1,9})\.db")
"""The name of a file of prometheus_client, with the process that made it."""
_OLD = 10.0
"""Seconds after which an empty file counts as left behind: a live process fills one within microseconds."""


class WorkerCollector(MultiProcessCollector):
    """``prometheus_client``'s ``MultiProcessCollector``, but unreadable files are left out and counted.

    Args:
        registry: The registry of the scrape.
        path: The folder of the files; by default that of ``PROMETHEUS_MULTIPROC_DIR``.
    """

    def collect(self) -> Iterator[Any]:
        """The metrics of all files that can be read, and the number of those that cannot."""
        files = sorted(str(each) for each in Path(self._path).glob("*.db"))
        good = [each for each in files if _readable(each)]
        try:
            yield from _merge(good, accumulate=True)
        except FileNotFoundError:  # one was removed since
            yield from _merge([each for each in good if _readable(each)], accumulate=True)
        family = GaugeMetricFamily(UNREADABLE, METRICS[UNREADABLE].help)
        family.add_metric([], len(files) - len(good))
        yield family


def remove_empty(folder: str | os.PathLike[str]) -> int:
    """Remove the empty files that ended processes have left behind, and return how many there were.

    Damaged files with contents stay: they may have counts. So do files of live processes, and recent ones.
    """
    removed = 0
    for path in Path(folder).glob("*.db"):
        named = _FILE.fullmatch(path.name)
        with contextlib.suppress(OSError):
            seen = path.stat(follow_symlinks=False)
            old = stat.S_ISREG(seen.st_mode) and time.time() - seen.st_mtime >= _OLD
            if named and old and not seen.st_size and not _runs(int(named[1])):
                path.unlink()
                removed += 1
    return removed


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _readable(path: str) -> bool:
    try:
        for _ in _read_all(path):
            pass
    except Exception:
        # struct.error, RuntimeError, UnicodeDecodeError, OSError: whatever is wrong, the others count.
        return False
    return True
