"""The hot calls of an open store without I/O."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

from lockkit.store.exchanges import Exchange, Route
from lockkit.store.spi import Answer, Beat, Claim, End, ReleaseAnswer, Renewal
from lockkit_redis import acquiring, renewing
from lockkit_redis.connection import Parser
from lockkit_redis.opening import opening
from lockkit_redis.store import RedisStore

__all__ = ["RedisExchanges"]


class RedisExchanges:
    """See :class:`lockkit.store.spi.Exchanges`."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.tls: ssl.SSLContext | None = store.tls

    def parser(self) -> Parser:
        """See :meth:`lockkit.store.spi.Exchanges.parser`."""
        return Parser()

    def opening(self, route: Route, end: float) -> Exchange[Any]:
        """See :meth:`lockkit.store.spi.Exchanges.opening`."""
        return opening(route, end)

    def acquire(self, claim: Claim, create: bool, budget: float) -> Exchange[Answer]:  # noqa: FBT001
        """See :meth:`lockkit.store.spi.Backend.acquire`."""
        return acquiring.acquire(self._store, claim, create, budget)

    def renew(self, beats: Sequence[Beat], budget: float) -> Exchange[Sequence[Renewal]]:
        """See :meth:`lockkit.store.spi.Backend.renew`."""
        return renewing.renew(self._store, beats, budget)

    def release(self, claim: Claim, budget: float, *, how: End = "released") -> Exchange[ReleaseAnswer]:
        """See :meth:`lockkit.store.spi.Backend.release`."""
        return acquiring.release(self._store, claim, budget, how=how)

    def abandon(self, claim: Claim, budget: float, *, how: End = "released") -> Exchange[ReleaseAnswer]:
        """See :meth:`lockkit.store.spi.Backend.abandon`. Leaves a tombstone even if it finds nothing."""
        return acquiring.abandon(self._store, claim, budget, how=how)

    def emergency_release(
        self, claim: Claim, budget: float, *, how: End = "released"
    ) -> Exchange[ReleaseAnswer]:
        """See :meth:`lockkit.store.spi.Backend.emergency_release`."""
        return acquiring.release(self._store, claim, budget, how=how, tombstone=True, fresh=True)
