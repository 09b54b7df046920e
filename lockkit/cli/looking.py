"""The locks that ``lockkit status`` shows, summed up in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lockkit.notes.members import in_pool
from lockkit.values import durations
from lockkit.views.looking import is_gate, most_contended, requests_waiting, summary

if TYPE_CHECKING:
    from lockkit.facts import LockInfo
    from lockkit.views.looking import Look

__all__ = ["contended_words", "summary_words"]


def summary_words(look: Look, now: float) -> str:
    """The summary as a line: ``2,000 locks: 1,990 held, 10 lingering; 35 claims wait, the longest for ...``.

    The gate of a pool is no lock there, but the request that passes it waits: ``2 requests wait, ...``.
    """
    gates = [info for info in look.locks if is_gate(info)]
    told = summary(look, now)
    states = (
        (told.held, "held"),
        (told.lingering, "lingering"),
        (told.waiting, "between two holders"),
        (told.free, "free"),
    )
    line = "1 lock" if told.locks == 1 else f"{told.locks:,} locks"
    if told.locks:
        line += f": {', '.join(f'{count:,} {state}' for count, state in states if count)}"
    waiting, noun = (_requests(look, gates), "request") if gates else (told.waiters, "claim")
    first = min(
        (
            (min(claim.since for claim in (info.claims if is_gate(info) else info.waiters)), info.name)
            for info in look.locks
            if info.waiters or is_gate(info)
        ),
        default=None,
    )
    if waiting and first is not None:
        since, name = first
        pool = in_pool(name)
        shown = repr(name) if pool is None else f"{pool[0]!r}"
        waits = f"1 {noun} waits," if waiting == 1 else f"{waiting:,} {noun}s wait, the longest"
        line += f"; {waits} for {durations.show(max(now - since, 0.0))} ({shown})"
    if len(look.shown) < len(look.locks):
        line += f"; {len(look.shown):,} shown (--limit 0 shows all)"
    return line


def contended_words(look: Look) -> str:
    """The lock that most claims wait for, in words; empty where at most one claim waits for each."""
    most = most_contended(look)
    return "" if most is None else f"most contended: {most.name!r}, {len(most.waiters):,} wait"


def _requests(look: Look, gates: Sequence[LockInfo]) -> int:
    """The number of requests that wait, each of which may have several claims."""
    pools = {parts[0] for info in gates if (parts := in_pool(info.name))}
    count = sum(
        len(info.waiters)
        for info in look.locks
        if (parts := in_pool(info.name)) is None or parts[0] not in pools
    )
    for gate in gates:
        pool = (in_pool(gate.name) or ("", None))[0]
        members = (
            one for one in look.locks if (in_pool(one.name) or ("", None))[0] == pool and one is not gate
        )
        count += requests_waiting(gate, (one.waiters for one in members))
    return count
