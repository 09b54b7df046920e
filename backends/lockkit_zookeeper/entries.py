"""This client's own claims. ZooKeeper keeps a node as long as its session lives, so deadlines are counted here.

A session lives on for all of its claims, and ZooKeeper knows of no ttl of a single one. So each claim has a deadline here:
for a held one when its holder's validity ends, for another one :data:`~lockkit.store.rows.GRACE` after its owner was last heard of. Past it the
claim is ended and its node is removed in the background, until that is definite (S11).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lockkit.store.rows import GRACE
from lockkit.store.spi import Claim, Lapsed, Why

__all__ = ["Entry"]


class Watcher(Protocol):
    """A waiter for this claim."""

    def wake(self) -> None:
        """Have it ask again."""

    def arm(self) -> None:
        """Watch the claims in its way, on a new connection."""


@dataclass(slots=True, eq=False)
class Entry:
    """One claim of this client. Changed under its session's mutex.

    Attributes:
        deadline: CLOCK_BOOTTIME seconds; see the module.
        path: The path of its node; None until that is known.
        fence: The node's czxid.
        sent: A create was sent. While there is no path, its node may be there, or may yet come.
        basis: CLOCK_BOOTTIME seconds from which validity counts, once held.
        fits_since: When it was first seen to fit, while its owner has not asked since.
        held: The claim was granted to its owner.
        ended: Nothing is granted or renewed any more; the node may still be there.
        why: The reason that its owner is told then.
        evicted: A note names it.
        since: When it was granted.
        alone: The queue was otherwise empty when it was granted.
        resized: A resize wrote to its node, so a marker may wait for its end.
        version: The version of its node's data, as last seen.
        waits: The node's data says that the claim waits.
        told: The server of this session has told that one of those in the way has gone, and the owner has not asked since.
        requests: The requests of others in its note.
        watches: The waiters for it.
    """

    claim: Claim
    deadline: float = 0.0
    path: str | None = None
    fence: int = 0
    sent: bool = False
    basis: float = 0.0
    fits_since: float | None = None
    held: bool = False
    ended: bool = False
    why: Why = "absent"
    evicted: bool = False
    since: float = 0.0
    alone: bool = False
    resized: bool = False
    version: int = 0
    waits: bool = False
    told: bool = False
    requests: Mapping[str, object] | None = None
    watches: dict[Watcher, None] = field(default_factory=dict)

    def wake(self) -> None:
        """Have its owner ask, if it waits."""
        for watcher in [*self.watches]:
            watcher.wake()

    def withdrawn(self) -> None:
        """Note that its node is definitely gone, and that another may be made."""
        self.path, self.fence, self.version, self.sent = None, 0, 0, False

    @property
    def token(self) -> str:
        return self.claim.token

    def heard(self, now: float) -> None:
        """Extend the deadline of a waiting claim: its owner asked, or the claim was seen not to fit."""
        self.fits_since = None
        self.deadline = max(self.deadline, now + GRACE)

    def offered(self, now: float) -> None:
        """Note that the claim was seen to fit: now its owner has to ask, and a heartbeat does not count."""
        if self.fits_since is None:
            self.fits_since = now
            self.deadline = now + GRACE

    def hold(self, now: float, basis: float, span: float) -> None:
        """Note that the claim is granted."""
        self.held = True
        self.since = now
        self.deadline = 0.0
        self.renew(basis, span)

    def renew(self, basis: float, span: float) -> None:
        """Note a renewal of a held claim; its deadline only grows."""
        self.basis = max(self.basis, basis)
        end = basis + span
        longest = self.claim.terms.max_hold
        if longest is not None:
            end = min(end, self.since + longest)
        self.deadline = max(self.deadline, end)

    @property
    def over(self) -> Why:
        """Why it ends, if nothing else is known."""
        return "evicted" if self.evicted else "absent"

    def lapsed(self) -> Lapsed:
        """The answer to its owner once it has ended."""
        return Lapsed(self.why)
