"""The mark of a drained namespace, in words for people."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lockkit.lib.printable import printable
from lockkit.values import durations

if TYPE_CHECKING:
    from lockkit.facts import Drain

__all__ = ["short", "told"]


def told(drain: Drain) -> str:
    """A sentence about a drained namespace: who drains it, for how long already, and why."""
    since = f" for {durations.show(max(time.time() - drain.since, 0.0))}" if drain.since else ""
    reason = f" (reason: {printable(drain.reason)})" if drain.reason else ""
    by = f"by {drain.owner}{since}{reason}"
    if drain.partial:
        return f"namespace {drain.namespace} has been partly drained {by}; some new locks are refused"
    return f"namespace {drain.namespace} has been drained {by}; new locks are refused"


def short(drain: Drain) -> str:
    """The same in a few words."""
    reason = f": {printable(drain.reason)}" if drain.reason else ""
    return f"{'partly ' if drain.partial else ''}drained by {drain.owner}{reason}"
