"""A ZooKeeper ensemble as a store."""

from __future__ import annotations

import time
from functools import partial

from lockkit.store.base import BasicBackend
from lockkit.store.dangers import warnings_of
from lockkit.store.spi import Extras, OpenOptions
from lockkit.values.names import check_namespace
from lockkit_zookeeper import (
    acquiring,
    evicting,
    health,
    operating,
    releasing,
    renewing,
    resizing,
    watching,
)
from lockkit_zookeeper.address import parse
from lockkit_zookeeper.draining import Mark
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = ["ZooKeeperBackend", "open_store"]


class ZooKeeperBackend(ZooKeeperStore, BasicBackend):
    """One open ensemble. Other modules' functions are its methods of :class:`~lockkit.store.spi.Backend`."""

    @property
    def extras(self) -> Extras:
        """See :class:`lockkit.store.spi.Extras`."""
        return Extras(namespaces=partial(operating.namespaces, self), drains=Mark(self))

    acquire = acquiring.acquire
    renew = renewing.renew
    extend = renewing.extend
    release = releasing.release
    emergency_release = releasing.emergency_release
    watch = watching.watch

    inspect = operating.inspect
    names = operating.names
    evict = evicting.evict
    resize = resizing.resize
    annotate = operating.annotate
    record = operating.record
    put_record = operating.put_record
    check = health.check


def open_store(url: str, options: OpenOptions) -> ZooKeeperBackend:
    """Open an ensemble. Connects at once, so that a wrong address or password is reported.

    Raises:
        ConfigError: The URL or the namespace is not allowed.
        Refused: No server can be reached, or they refuse the login; or if ``strict`` ticks seem too long.
    """
    check_namespace(options.namespace)
    store = ZooKeeperBackend(parse(url), options)
    end = time.monotonic() + options.budget
    try:
        store.open(options.budget)
        if options.strict:
            ticks = [each for each in store.check(end - time.monotonic()) if each.check == "tick"]
            warnings_of(
                [each._replace(severity="error") for each in ticks], strict=True, who=store.address.shown
            )
    except BaseException:
        store.close()
        raise
    return store
