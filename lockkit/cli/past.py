"""The event journals that ``history``, ``audit`` and ``report`` read, and sentences about their gaps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lockkit.cli import exits

if TYPE_CHECKING:
    from lockkit.cli.base import Session
    from lockkit.config.config import Config
    from lockkit.observe.past import Gaps, History

__all__ = ["SINCE", "missing", "read"]

SINCE = "Only what was not over this long ago, e.g. 1h or 7d."
_NAMED = 5
"""Processes or files that one sentence names."""


def read(
    session: Session,
    files: Sequence[str],
    name: str | None,
    since: float | None,
    *,
    absent: int = exits.FAILED,
) -> History:
    """Read the journals.

    Without ``files`` those of the session's store; with ``--url`` or ``--namespace`` only what matches.
    ``since``: only what was not over this many seconds ago. ``absent``: the exit code if there is no journal.

    Raises:
        CommandFailed: There is no journal.
    """
    from lockkit.config.store_names import store_of
    from lockkit.observe.history import journals, read_history

    begin = None if since is None else time.time() - since
    if files:
        found = read_history(files, name=name, since=begin)
        store = None if session.url is None else store_of(session.config())
        return found.only(store, session.namespace)
    config = session.config()
    if not journals(config):
        raise exits.CommandFailed(
            "there is no event journal on this host", code=absent, kind="absent", hint=_turn_on(config)
        )
    found = read_history(config=config, name=name, since=begin)
    return found.only(None if session.url is None else store_of(config), session.namespace)


def _turn_on(config: Config) -> str:
    if config.journal:
        return "it is turned on, and is written from the next lock on"
    files = list(config.files)
    own = files[1] if len(files) > 1 else files[0] if files else "/etc/lockkit/config.toml"
    return (
        "to keep one from now on, set LOCKKIT_JOURNAL=1, or write this row above all "
        f"tables of {own}: journal = true"
    )


def missing(found: Gaps) -> Iterator[str]:
    """A sentence for each kind of thing that is missing."""
    if found.missed:
        yield (
            f"{_count(found.missed, 'event')} did not reach a journal, because it "
            "could not be written fast enough"
        )
    if found.absent:
        yield (
            f"{_count(found.absent, 'row')} of a journal {_are(found.absent)} missing: a file was removed, "
            "or could not be written"
        )
    if found.torn:
        yield f"{_count(found.torn, 'row')} could not be read: a crash or a full disk cut {_them(found.torn)}"
    if found.unended:
        named = _named([str(owner) for owner in found.unended])
        yield (
            f"{_count(len(found.unended), 'process', 'es')} ended without closing a journal, or cannot be "
            f"seen from here: {named}"
        )
    if found.unheard:
        yield (
            f"{_count(len(found.unheard), 'holder')} that others met {_are(len(found.unheard))} in no "
            f"journal, or not with that claim: {_named(found.unheard)}"
        )
    for file in found.unreadable:
        yield f"a journal could not be read: {file}"


def _named(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return f"{', '.join(texts[:_NAMED])}{more}"


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _them(number: int) -> str:
    return "it" if number == 1 else "them"
