"""The handle of a claim as a document, and the copy of a lease that is made from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lockkit.errors import ConfigError, LeaseLost, NotHeld
from lockkit.facts import Reason, ReleaseReport
from lockkit.store.spi import Claim, Terms
from lockkit.values.names import check_name, check_token, claim_id

if TYPE_CHECKING:
    from lockkit.protocol.hold import Hold
    from lockkit.shared.opening import Opening

__all__ = ["LeaseCopy", "handle_of"]


def handle_of(hold: Hold, namespace: str) -> dict[str, object]:
    """A document with which another process can release a hold. Contains the token: a secret."""
    return {
        "v": 1,
        "namespace": namespace,
        "name": hold.name,
        "token": hold.claim.token,
        "fence": hold.fence,
    }


class LeaseCopy:
    """A copied or unpickled Lease. A copy can release or extend exactly its claim, and is never valid.

    ``valid()`` is always false, because only the lease that renews a claim knows whether it is held. To
    release or extend the claim, bind the copy to a client (:meth:`~lockkit.Client.adopt`).

    Attributes:
        namespace: The namespace of the claim; None if the handle does not say.
    """

    def __init__(self, handle: Mapping[str, object], opening: Opening | None = None) -> None:
        try:
            self.name = check_name(handle["name"])
            self.fence = int(str(handle["fence"]))
            self._token = check_token(handle["token"])
            if handle.get("v", 1) != 1:
                raise ValueError(f"v is {handle['v']!r:.20}, and this lockkit knows 1")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"not the handle of a lease: {error!r}") from None
        namespace = handle.get("namespace")
        self.namespace = None if namespace is None else str(namespace)
        self._handle = dict(handle)
        self._opening = opening

    @property
    def claim_id(self) -> str:
        return claim_id(self._token)

    def valid(self) -> bool:
        """Return False: a copy does not know whether its claim is held."""
        return False

    def held(self) -> bool:
        """Ask the store whether the claim is HELD, in one round trip.

        Raises:
            NotHeld: The copy is not bound to a client.
            BackendError: There was no answer.
        """
        return self._bound().driver().requests.held(self.name, self.claim_id) is not None

    def extend(self, ttl: float) -> None:
        """Keep exactly this claim for at least ``ttl`` seconds from now on, and after later renewals (S7).

        For a claim that no process renews, such as one of a lock with ``pulseless=True`` that a script has
        handed over. The copy is never valid and renews nothing: call this again before the time is over. A
        claim that is tied to a process still ends with that process, and ``max_hold`` still ends it.

        Args:
            ttl: Seconds; at least the present ttl of the claim, because no call shortens a held claim. A ttl
                above what the store grants becomes the longest that it grants.

        Raises:
            ConfigError: Below the present ttl; or with ``strict`` longer than the store grants.
            CapabilityError: The store has one ttl for all claims.
            LeaseLost: The store does not record the claim as held.
            NotHeld: The copy is not bound to a client.
            BackendError: There was no definite answer. The claim may have been extended.
        """
        opening = self._bound()
        opening.longer_ttl(ttl, 0.0)  # before any I/O
        requests = opening.driver().requests
        claim = requests.held(self.name, self.claim_id)
        if claim is not None:
            ttl = opening.longer_ttl(ttl, claim.ttl)
            if requests.prolong(Claim(self._token, Terms(self.name, ttl)), self.fence):
                return
        raise LeaseLost(
            f"the store does not record claim {self.claim_id} of {self.name!r} as held",
            name=self.name,
            hint="stop the guarded work; acquire again for a new fence",
        )

    def release(self, reason: Reason = "normal") -> ReleaseReport:
        """Remove exactly this claim and no other. The store compares the token (S7).

        If a lease in another process still renews the claim, that lease learns of the release only at its
        next renewal or ``confirm()``. Until then its ``valid()`` may be true while the next holder has the
        lock. So release only claims that no process renews; evict the others.

        Raises:
            NotHeld: The copy is not bound to a client.
            BackendError: There was no definite answer.
        """
        return (
            self._bound().driver().requests.remove(Claim(self._token, Terms(self.name)), self.fence, reason)
        )

    def _bound(self) -> Opening:
        if self._opening is None:
            raise NotHeld(
                f"this copy of the lease of {self.name!r} has no client",
                name=self.name,
                hint="bind it to a client: client.adopt(copy)",
            )
        return self._opening

    def handle(self) -> dict[str, object]:
        """The handle of the claim, as :meth:`Lease.handle` returns it."""
        return dict(self._handle)

    def __reduce__(self) -> tuple[type[LeaseCopy], tuple[dict[str, object]]]:
        return LeaseCopy, (self._handle,)

    def __repr__(self) -> str:
        return f"<LeaseCopy {self.name!r} claim {self.claim_id} fence {self.fence}>"
