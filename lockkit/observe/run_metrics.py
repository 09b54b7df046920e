"""The metrics of one ``lockkit run``, for a textfile: nobody could scrape a process that may last a second.

The previous run's file supplies the last success, failure and end, which a run in progress must not hide.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lockkit.lib.clock import SYSTEM
from lockkit.lib.namedtuples import NamedTuple
from lockkit.observe.exposition import Samples, parse
from lockkit.observe.instruments import OTHER
from lockkit.observe.lock_labels import LockLabels

__all__ = ["RunMetrics", "earlier"]

_MOST = 1 << 20
"""Bytes of an older file that are read; a run writes a few hundred for each lock."""
_KEPT = (
    "lockkit_run_hold_seconds",
    "lockkit_run_exit_code",
    "lockkit_run_ended_timestamp_seconds",
    "lockkit_run_last_success_timestamp_seconds",
    "lockkit_run_last_failure_timestamp_seconds",
)
"""The metrics of the last run that has ended, which may be an earlier one."""


class _State(NamedTuple):
    """The course of a run, in seconds since 1970; ``acquired_after``, ``held_after`` count from its start."""

    names: tuple[str, ...]
    labels: LockLabels | None = None
    held: tuple[str, ...] = ()
    acquired_after: float | None = None
    held_after: float | None = None
    ended: float | None = None
    code: int = 0


class RunMetrics:
    """Collects what happens to one run. One thread reports; any thread may ask for the samples.

    A run has succeeded if it got its lock and ``lockkit run`` ends with 0, and failed if that ends with
    another code. A run that got no lock and still ends with 0 (``-E 0``) has done neither.

    Args:
        run: The value of the label ``run``, which keeps the files of several jobs apart.
        names: The locks that are asked for.
        now: The wall clock, in seconds since 1970.
        clock: A clock that never steps back, in seconds.
    """

    def __init__(
        self,
        run: str,
        names: Sequence[str],
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = SYSTEM.now,
    ) -> None:
        self._run = run
        self._now = now
        self._clock = clock
        self._started, self._began = now(), clock()
        # Replaced as a whole, so that another thread reads one or the other.
        self._state = _State(tuple(names))

    def labelled(self, labels: LockLabels) -> None:
        """Learn the labels; until then the older file's count, lest a bad configuration rename a job."""
        self._state = self._state._replace(labels=labels)

    def named(self, name: str) -> None:
        """Learn the name of the lock, if only the configuration has it."""
        self._state = self._state._replace(names=(name,))

    def acquired(self, names: Sequence[str] = ()) -> None:
        """Learn that the command is about to run.

        Args:
            names: The locks that were got; none if all that were asked for.
        """
        self._state = self._state._replace(
            held=tuple(names) or self._state.names, acquired_after=self._since()
        )

    def released(self) -> None:
        """Learn that the command has ended and its locks are given back."""
        self._state = self._state._replace(held_after=self._since())

    def ended(self, code: int) -> None:
        """Learn that the run is over.

        Args:
            code: The exit code of ``lockkit run``.
        """
        self._state = self._state._replace(ended=self._now(), code=code)

    def samples(self, before: Samples) -> Samples:
        """The metrics now.

        Args:
            before: The samples of an earlier run's file, as from :func:`earlier`.
        """
        state = self._state
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        got = set() if state.labels is None else {state.labels(name) for name in state.held}
        for label in self._labels(state, before):
            key = (("run", self._run), ("lock", label))
            kept = {metric: before.get(metric, {}).get(key) for metric in _KEPT}
            for metric, value in {**kept, **self._values(state, got=label in got)}.items():
                if value is not None:
                    found.setdefault(metric, {})[key] = float(value)
        return found

    def _labels(self, state: _State, before: Samples) -> Sequence[str]:
        if state.labels is not None:
            return list(dict.fromkeys(state.labels(name) for name in state.names))
        known = {
            dict(labels).get("lock", OTHER)
            for labels in before.get("lockkit_run_started_timestamp_seconds", {})
            if dict(labels).get("run") == self._run
        }
        return sorted(known) or [OTHER]

    def _values(self, state: _State, *, got: bool) -> dict[str, float]:
        """The values of this run for one lock."""
        waited = self._since() if state.acquired_after is None else state.acquired_after
        values: dict[str, float] = {
            "lockkit_run_started_timestamp_seconds": self._started,
            "lockkit_run_running": state.ended is None,
            "lockkit_run_acquired": got,
            "lockkit_run_wait_seconds": waited,
        }
        if got and state.acquired_after is not None:
            until = self._since() if state.held_after is None else state.held_after
            values["lockkit_run_hold_seconds"] = until - state.acquired_after
        if state.ended is not None:
            values["lockkit_run_exit_code"] = state.code
            values["lockkit_run_ended_timestamp_seconds"] = state.ended
            if state.code:
                values["lockkit_run_last_failure_timestamp_seconds"] = state.ended
            elif got:
                values["lockkit_run_last_success_timestamp_seconds"] = state.ended
        return values

    def _since(self) -> float:
        return max(self._clock() - self._began, 0.0)


def earlier(path: Path) -> Samples:
    """The samples in the file of an earlier run; none if there is no such file, or it is not one of ours.

    Raises:
        OSError: There is one that cannot be read.
    """
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        text = file.read(_MOST + 1)
    return parse(text) if len(text) <= _MOST else {}
