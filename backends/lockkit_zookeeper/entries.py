"""This client's own claims, with the deadlines that ZooKeeper does not keep.

ZooKeeper keeps a node as long as its session lives, and has no ttl of a single claim. So the client counts: a
held claim's deadline is the end of its validity, another one's :data:`~lockkit.store.spi.GRACE` after its
owner last asked. Then a claim is ended, and its node is removed in the background, for certain (S11).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lockkit.store.spi import GRACE, Claim, Lapsed, Why

__all__ = ["Entry"]


class Watcher(Protocol):
    """The watch of a claim's waiting owner."""

    def wake(self) -> None:
        """Make the owner ask the store again."""

    def arm(self) -> None:
        """Watch the claim's blockers, on a new connection."""


@dataclass(slots=True, eq=False)
class Entry:
    """One claim of this client. Changed under its session's mutex.

    Attributes:
        deadline: CLOCK_BOOTTIME seconds; see the module.
        path: The path of its node; None until that is known.
        fence: The node's czxid.
        sent: True once a create was sent. While there is no path, the node may exist, or may yet be created.
        basis: CLOCK_BOOTTIME seconds from which the validity of a held claim counts.
        fits_since: When the claim was first seen to fit; None once its owner has asked.
        held: True once the claim was granted to its owner.
        ended: True once the claim is neither granted nor renewed any more; the node may still exist.
        why: The reason to give the owner of an ended claim.
        evicted: True once a note names the claim.
        since: When the claim was granted.
        alone: True if the queue had no other claim at the grant.
        resized: True if a resize wrote to the node, so that a marker may have to go with the claim.
        version: The version of the node's data, as last seen.
        data: The data that the node was made with, until the claim is granted.
        waits: True while the node's data says that the claim waits.
        granted: When a waiting claim was granted, in seconds since 1970, if its node has yet to say so.
        watcher: The watcher of the claim's own node, so that two reads of it set one watch.
        told: True once this session's server reported the end of a claim in the way, until the owner asks.
        requests: The note, if others have changed it: their requests to the owner.
        watches: The watches of the waiting owner.
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
    data: bytes = b""
    waits: bool = False
    granted: float | None = None
    watcher: Callable[[Any], None] | None = None
    told: bool = False
    requests: Mapping[str, object] | None = None
    watches: dict[Watcher, None] = field(default_factory=dict)

    def wake(self) -> None:
        """Have the owner ask again, if it waits."""
        for watcher in [*self.watches]:
            watcher.wake()

    def withdrawn(self) -> None:
        """Note that the node is definitely gone, and that another one may be created."""
        self.path, self.fence, self.version, self.sent = None, 0, 0, False
        self.waits, self.watcher = False, None

    @property
    def token(self) -> str:
        return self.claim.token

    def heard(self, now: float) -> None:
        """Extend the deadline of a waiting claim: its owner asked, or the claim was seen not to fit."""
        self.fits_since = None
        self.deadline = max(self.deadline, now + GRACE)

    def offered(self, now: float) -> None:
        """Note that the claim was seen to fit: from now on only its owner, no heartbeat, extends its time."""
        if self.fits_since is None:
            self.fits_since = now
            self.deadline = now + GRACE

    def hold(self, now: float, basis: float, span: float) -> None:
        """Note that the claim is granted."""
        self.held = True
        self.since = now
        self.data = b""
        self.deadline = 0.0
        self.renew(basis, span)

    def renew(self, basis: float, span: float) -> None:
        """Note a renewal of a held claim; its deadline only grows."""
        if basis > self.basis:  # noqa: PLR1730 (without calls: each heartbeat does this for thousands of claims)
            self.basis = basis
        end = basis + span
        longest = self.claim.terms.max_hold
        if longest is not None:
            end = min(end, self.since + longest)
        if end > self.deadline:  # noqa: PLR1730
            self.deadline = end

    @property
    def over(self) -> Why:
        """The reason for an end, if no other is known."""
        return "evicted" if self.evicted else "absent"

    def lapsed(self) -> Lapsed:
        """The answer to the owner of an ended claim."""
        return Lapsed(self.why)
