"""A ZooKeeper ensemble as a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from lockkit.errors import BackendUnavailable
from lockkit.facts import Capabilities, Evicted, Finding, LockInfo, Record
from lockkit.names import check_namespace
from lockkit.store.spi import (
    NO_EXTRAS,
    Answer,
    Beat,
    Claim,
    Extras,
    OpenOptions,
    Refused,
    ReleaseAnswer,
    Renewal,
    Watch,
)
from lockkit_zookeeper import acquiring, evicting, health, operating, renewing, resizing, watching
from lockkit_zookeeper.address import parse
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = ["ZooKeeperBackend", "open_store"]


def open_store(url: str, options: OpenOptions) -> ZooKeeperBackend:
    """Open an ensemble. Connects, so that a wrong address or password is told at once.

    Raises:
        ConfigError: The URL or the namespace is not allowed.
        Refused: No server can be reached, or they refuse the login.
    """
    check_namespace(options.namespace)
    return ZooKeeperBackend(ZooKeeperStore(parse(url), options), options)


class ZooKeeperBackend:
    """One open ensemble. Thread-safe; of no use in a forked child."""

    def __init__(self, store: ZooKeeperStore, options: OpenOptions) -> None:
        self.store = store
        self.capabilities: Capabilities = store.can
        self.extras: Extras = NO_EXTRAS
        end = time.monotonic() + options.budget
        try:
            store.open(options.budget)
            if options.strict:
                self._look_round(end - time.monotonic())
        except BaseException:
            self.close()
            raise

    def _look_round(self, budget: float) -> None:
        bad = next((each for each in health.check(self.store, budget) if each.check == "tick"), None)
        if bad is not None:
            text = f"{self.store.address.shown}: {bad.message}; strict refuses that"
            raise Refused(BackendUnavailable(text, hint=bad.hint), retry=False)

    # -- claims

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        """See :meth:`lockkit.store.spi.Backend.acquire`."""
        self.store.mine()
        return acquiring.acquire(self.store, claim, create, budget)

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        """See :meth:`lockkit.store.spi.Backend.renew`."""
        self.store.mine()
        return renewing.renew(self.store, beats, budget)

    def extend(self, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.extend`; what is held cannot be extended."""
        self.store.mine()
        return renewing.extend(self.store, claim, fence, budget)

    def release(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.release`. Nothing lingers, so ``graceful`` makes no difference."""
        self.store.mine()
        return acquiring.release(self.store, claim, budget)

    def abandon(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.abandon`."""
        self.store.mine()
        return acquiring.release(self.store, claim, budget)

    def emergency_release(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.emergency_release`."""
        self.store.mine()
        return acquiring.emergency_release(self.store, claim, budget)

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:
        """See :meth:`lockkit.store.spi.Backend.watch`."""
        self.store.mine()
        return watching.watch(self.store, name, blockers, wake, claim)

    # -- operating

    def inspect(self, name: str, budget: float) -> LockInfo:
        """See :meth:`lockkit.store.spi.Backend.inspect`."""
        self.store.mine()
        return operating.inspect(self.store, name, budget)

    def names(self, prefix: str, budget: float, *, deep: bool = False) -> Sequence[str]:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.names`. Always exact, so ``deep`` makes no difference."""
        self.store.mine()
        return operating.names(self.store, prefix, budget)

    def evict(self, name: str, claim_id: str, budget: float, *, now: bool = False) -> Evicted:
        """See :meth:`lockkit.store.spi.Backend.evict`. ``now=True`` removes at once: its holder may still believe in it."""
        self.store.mine()
        return evicting.evict(self.store, name, claim_id, budget, now=now)

    def resize(self, name: str, capacity: int, budget: float) -> int:
        """See :meth:`lockkit.store.spi.Backend.resize`."""
        self.store.mine()
        return resizing.resize(self.store, name, capacity, budget)

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Backend.annotate`."""
        self.store.mine()
        return operating.annotate(self.store, name, claim_id, patch, budget)

    def record(self, name: str, budget: float) -> Record | None:
        """See :meth:`lockkit.store.spi.Backend.record`."""
        self.store.mine()
        return operating.record(self.store, name, budget)

    def put_record(self, name: str, value: Mapping[str, object], version: int, budget: float) -> Record:
        """See :meth:`lockkit.store.spi.Backend.put_record`."""
        self.store.mine()
        return operating.put_record(self.store, name, value, version, budget)

    def check(self, budget: float) -> Sequence[Finding]:
        """See :meth:`lockkit.store.spi.Backend.check`."""
        self.store.mine()
        return health.check(self.store, budget)

    def close(self) -> None:
        """Let go of sessions and connections. One whose claims stand is left to its timeout."""
        self.store.close()
