"""Misspelt options of a locked task, and their names elsewhere. Celery silently takes any option."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from lockkit.errors import ConfigError
from lockkit.integrations.celery.options import NAMES

__all__ = ["HABITS", "check_names"]

HABITS = {
    "blocking": 'on_busy="wait"',
    "blocking_timeout": "max_wait",
    "busy": "on_busy",
    "expiry": "ttl",
    "fence": "fence_as",
    "gpu_memory": "gpu_mem",
    "lock_expiry": "ttl",
    "lock_name": "lock",
    "lock_timeout": "ttl",
    "lock_ttl": "ttl",
    "once": 'lock="bill:{invoice_id}", on_busy="skip"',
    "raise_on_duplicate": 'on_busy="fail"',
    "semaphore": "capacity",
    "timeout": "max_wait",
    "unique_on": 'lock="bill:{invoice_id}", on_busy="skip"',
    "wait": "max_wait",
    "wait_timeout": "max_wait",
}
"""Words that people write for an option, and the option."""
_TAKEN = {"gpus"}
"""Names like an option that a running task has, and that an option of this name would replace."""
_LIKE = 0.8
"""The ratio of difflib from which on a name counts as an option; a slip in three letters stays below."""
_SHORT = 5
"""The most letters of a name in which one slip is taken for a mistake; in a longer one it may be two."""


def check_names(task: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse an attribute of a task that looks like an option of its lock.

    Args:
        task: The task.
        given: The attributes of its class.
        known: The attributes that Celery knows, and those of base classes.

    Raises:
        ConfigError: There is such an attribute.
    """
    for name in sorted((set(given) - set(known) - set(NAMES)) | (_TAKEN & set(given))):
        meant = None if name.startswith("_") else _meant(name)
        if meant is not None:
            raise ConfigError(
                f"task {task} has no option {name!r}",
                hint=f"did you mean {meant!r}? An attribute of your own of that name belongs in a base class",
            )


def _meant(name: str) -> str | None:
    """The option that is meant by a name, or None."""
    if name in HABITS:
        return HABITS[name]
    close = difflib.get_close_matches(name, NAMES, n=1, cutoff=_LIKE)
    if close:
        return close[0]
    # Few people slip in the first letter, and short words that differ there are often other words: cpu, tool.
    alike = [each for each in NAMES if each[0] == name[0] or each[:2] == name[:2][::-1]]
    return next((each for each in alike if _slips(name, each) <= (1 if len(each) <= _SHORT else 2)), None)


def _slips(one: str, other: str) -> int:
    """The number of letters to insert, drop, replace or swap (Damerau's distance, none touched twice)."""
    rows = [list(range(len(other) + 1))]
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, wanted in enumerate(other, 1):
            least = min(rows[-1][j] + 1, row[j - 1] + 1, rows[-1][j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                least = min(least, rows[-2][j - 2] + 1)
            row.append(least)
        rows.append(row)
    return rows[-1][-1]
