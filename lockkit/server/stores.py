"""The stores of a server."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from lockkit.errors import ConfigError, LockkitError
from lockkit.hooks import of_gpus
from lockkit.observe.exporter import Exporter
from lockkit.server.health import health
from lockkit.server.problems import HttpProblem
from lockkit.server.readiness import Readiness
from lockkit.server.sharing import Shared
from lockkit.server.watching import StoreWatch
from lockkit.values.names import ALERTER, digest
from lockkit.views.looking import Asked, look

if TYPE_CHECKING:
    from lockkit.server.documents import StoreHealth
    from lockkit.sync.client import Client
    from lockkit.views.documents import GpuLs
    from lockkit.views.looking import Look

__all__ = ["ServerStore", "ServerStores", "id_of"]

_HEALTH = 2.0
"""Seconds for which a verdict counts."""
_LOCK = 0.25
"""Seconds for which a look at one lock counts."""
_LOCKS = 64
"""Locks of which a look is remembered."""
_GPUS = 2.0
"""Seconds for which a look at GPUs counts: looking costs the driver something."""


def id_of(client: Client) -> str:
    """The id of a store in requests, the same after a restart: its scheme and a hash of URL and namespace."""
    scheme = re.split(r"[+:]", client.url, maxsplit=1)[0].lower()
    return f"{scheme}-{digest(f'{client.url} {client.namespace}')[:8]}"


class ServerStore:
    """One store of a server: its client, and what many viewers share.

    Attributes:
        id: The id of the store in requests; see :func:`id_of`.
        readiness: Whether the store answers.
    """

    def __init__(self, client: Client, *, simulate: int | None = None) -> None:
        self.client = client
        self.id = id_of(client)
        self.watch = StoreWatch(client)
        self.readiness = Readiness(self._ask)
        self._simulate = simulate
        self._mutex = threading.Lock()
        self._locks: dict[str, Shared[tuple[Look, float]]] = {}
        self._health = Shared(self._check, _HEALTH)
        self._gpus = Shared(self._look_at_gpus, _GPUS)

    def lock(self, name: str) -> tuple[Look, float]:
        """A shared look at one lock, free or not, and when it was made, in seconds since 1970.

        Raises:
            LockkitError: The store did not answer.
        """
        with self._mutex:
            shared = self._locks.pop(name, None)
            if shared is None:
                shared = Shared(partial(self._look_at_lock, name), _LOCK)
            self._locks[name] = shared
            while len(self._locks) > _LOCKS:
                del self._locks[next(iter(self._locks))]
        return shared.get()

    def health(self) -> StoreHealth:
        """The verdict on this store, and the reasons."""
        return self._health.get()

    def gpus(self) -> GpuLs:
        """The GPUs of this host; an empty list with a remark if nothing can be said about any."""
        return self._gpus.get()

    def forget(self) -> None:
        """Have the next looks ask the store and the driver, because something was changed."""
        self.watch.forget()
        with self._mutex:
            self._locks = {}
        self._health.forget()
        self._gpus.forget()

    def _ask(self) -> None:
        self.client.inspect(ALERTER)  # a small question, of which every store can answer any number

    def _look_at_lock(self, name: str) -> tuple[Look, float]:
        return look(self.client, Asked(name=name, exactly=True)), time.time()

    def _check(self) -> StoreHealth:
        found: Look | LockkitError
        try:
            found = self.watch.look()[0]
        except LockkitError as error:
            found = error
        return health(self.id, self.client, found)

    def _look_at_gpus(self) -> GpuLs:
        seen: GpuLs = of_gpus("seen_here")(self.client, self._simulate)
        return seen


class ServerStores:
    """All stores of a server, by id.

    Attributes:
        all: The stores, in the order in which they were given.
        exporter: The exporter that reads all of them for Prometheus.

    Args:
        clients: A client for each.

    Raises:
        ConfigError: There is no client, or two are for the same store and namespace.
    """

    def __init__(self, clients: Sequence[Client]) -> None:
        if not clients:
            raise ConfigError("a server needs at least one store")
        self.all = tuple(ServerStore(client) for client in clients)
        self.exporter = Exporter(*clients)
        ids = [one.id for one in self.all]
        twice = next((one for one in self.all if ids.count(one.id) > 1), None)
        if twice is not None:
            raise ConfigError(
                f"the store {twice.client.url} is given twice, in the namespace {twice.client.namespace}"
            )

    def find(self, identity: str | None) -> ServerStore:
        """The store that a request means; the only one if it names none.

        Raises:
            HttpProblem: There is no such store, or the request has to name one.
        """
        known = ", ".join(one.id for one in self.all)
        if identity is None:
            if len(self.all) == 1:
                return self.all[0]
            raise HttpProblem(
                400, "store_missing", "this server has several stores", hint=f"store is one of {known}"
            )
        found = next((one for one in self.all if one.id == identity), None)
        if found is None:
            raise HttpProblem(
                404, "no_such_store", f"there is no store {identity!r}", hint=f"store is one of {known}"
            )
        return found

    def close_soon(self) -> None:
        """End the streams of all viewers without waiting for the pollers."""
        for one in self.all:
            one.watch.close(0.0)

    def close(self) -> None:
        """End the streams of all viewers. The clients stay open: they belong to the caller."""
        for one in self.all:
            one.watch.close()
