"""Check that a resource refuses a stale fence: two holders take turns, as after a pause over the ttl."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from lockkit.errors import StaleFence
from lockkit.guard.scratch import Holder, Scratch

__all__ = ["Shown", "checks"]


class Shown(NamedTuple):
    """The result of one check.

    Attributes:
        check: The check, in one word.
        ok: Whether the resource did what it must.
        message: The same in a sentence.
    """

    check: str
    ok: bool
    message: str


class _Paused(NamedTuple):
    """The lease of a holder that believes in it, however long it was paused."""

    fence: int
    name: str = "a lock"
    exclusive: bool = True

    def ensure_held(self) -> None:
        """Do nothing: this holder was paused just after it had checked."""


def checks(scratch: Scratch) -> Iterator[Shown]:
    """Make the checks, one after the other. Each holder has a separate connection.

    Raises:
        LockkitError: The resource did not answer, or refused for another reason than the fence.
        Exception: An error of the resource's library.
    """
    older = scratch.open(_Paused(1))
    older.write("older")
    yield _equal(
        "older", older, "older", "the holder of fence 1 opens it, writes, and reads what it has written"
    )
    newer = scratch.open(_Paused(2))
    yield _equal(
        "newer", newer, "older", "the holder of fence 2 opens it, and reads what fence 1 has written"
    )
    yield _refused(
        "stale-write", lambda: older.write("late"), "a write of fence 1, after fence 2 has opened it"
    )
    newer.write("newer")
    yield _refused(
        "stale-after-write", lambda: older.write("late"), "a write of fence 1, after fence 2 has written"
    )
    yield _refused("stale-open", lambda: scratch.open(_Paused(1)), "fence 1, when it opens it again")
    yield _equal("kept", newer, "newer", "what fence 2 has written is still there")


def _equal(check: str, holder: Holder, expected: str, sentence: str) -> Shown:
    try:
        found = holder.read()
    except StaleFence as error:
        return Shown(check, False, f"{sentence}; it is refused: {error.message}")
    if found == expected:
        return Shown(check, True, sentence)
    return Shown(check, False, f"{sentence}; it reads {found!r} instead of {expected!r}")


def _refused(check: str, attempt: Callable[[], object], what: str) -> Shown:
    try:
        attempt()
    except StaleFence:
        return Shown(check, True, f"it refuses {what}")
    return Shown(check, False, f"it accepts {what}")
