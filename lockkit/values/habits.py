"""Answers to habits from other libraries: an error for a foreign name or keyword names the right one.

The words (:mod:`lockkit.values.habit_words`) are imported when a name is missing: others pay nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

__all__ = ["HABITUAL", "Answering", "missing", "unexpected"]

HABITUAL = frozenset(
    {
        "BoundedSemaphore",
        "FileLock",
        "Lockkit",
        "Mutex",
        "RLock",
        "ReadLock",
        "Redis",
        "Redlock",
        "Semaphore",
        "WriteLock",
        "acquire",
        "evict",
        "get_lock",
        "gpu",
        "inspect",
        "lock",
        "locked",
        "open",
        "resize",
        "rlock",
        "rwlock",
        "semaphore",
        "try_acquire",
    }
)
"""The names that people look for in the module ``lockkit``, where they are not."""


class Answering:
    """A base class whose AttributeError, for a name that another library has, says what to write instead."""

    __slots__ = ()

    if not TYPE_CHECKING:  # a type checker would take every name for one that exists

        def __getattr__(self, name: str) -> object:
            if not name.startswith("_"):
                for each in type(self).__mro__:
                    error = missing(each.__name__, name)
                    if error is not None:
                        raise error
            return object.__getattribute__(self, name)  # raises the usual error


def missing(owner: str, name: str) -> AttributeError | None:
    """The error for a name that a class, or the module, does not have; None if no habit explains it."""
    from lockkit.values.habit_words import NAMES, OF_A_LEASE

    hint = NAMES.get(owner, {}).get(name)
    if hint is None and owner == "Lock" and name in OF_A_LEASE:
        hint = (
            f"its lease has: write lock.lease.{name} inside `with lock:`, or `with lock.acquire() as lease:` "
            f"and lease.{name}"
        )
    if hint is None:
        return None
    what = "module 'lockkit'" if owner == "module" else f"{owner!r} object"
    return AttributeError(f"{what} has no attribute {name!r}: {hint}")


def unexpected(call: str, keywords: Mapping[str, object], timeout: object = None) -> TypeError:
    """The error for keywords that ``Lock.acquire`` does not have.

    Args:
        call: The call, as it is written.
        keywords: The keywords.
        timeout: The timeout that the lock was made with; None for the configured one.
    """
    from lockkit.values.habit_words import ACQUIRE, timeouts

    name = next((each for each in keywords if each in ACQUIRE), next(iter(keywords)))
    hint = f": {ACQUIRE[name]}{timeouts(keywords, timeout)}" if name in ACQUIRE else ""
    return TypeError(f"{call} got an unexpected keyword argument {name!r}{hint}")
