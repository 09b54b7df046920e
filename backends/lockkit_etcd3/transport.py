"""The transport by way of python-etcd3: what the store asks of etcd, over gRPC."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from lockkit.errors import BackendUnavailable
from lockkit.lib.clock import Clock
from lockkit.lib.origin import Origin
from lockkit.store.exchanges import Exchange
from lockkit.store.inherited import inherited
from lockkit.store.spi import Refused
from lockkit_etcd.address import Address
from lockkit_etcd.cluster import Cluster, watched_ranges
from lockkit_etcd.transport import Kept, News, Stream
from lockkit_etcd3 import forks, library
from lockkit_etcd3.endpoint import Endpoint, trusted
from lockkit_etcd3.library import Library
from lockkit_etcd3.messages import Messages
from lockkit_etcd3.watching import Watching

__all__ = ["PythonEtcd3", "connect"]


def connect(address: Address, clock: Clock) -> PythonEtcd3:
    """Make the transport. It connects when it is first used.

    Raises:
        ImportError: python-etcd3 is not installed.
        ConfigError: The library cannot be imported, or a certificate or key cannot be used.
        Refused: This process was forked from one that used gRPC in a way that leaves none for it.
    """
    loaded = library.load()
    if trouble := forks.trouble():
        hint = "connect in the children only, spawn instead of forking, or write etcd://"
        raise Refused(BackendUnavailable(f"{address.shown}: {trouble}", hint=hint), retry=False)
    return PythonEtcd3(loaded, address, clock, trusted(address))


class PythonEtcd3(Cluster[Endpoint]):
    """The transport over gRPC. See :class:`lockkit_etcd.cluster.Cluster`.

    gRPC has threads of its own and blocks until one of them has an answer. So an exchange makes its call
    itself, yields nothing to send, and is performed in a thread that may block.
    """

    def __init__(
        self,
        loaded: Library,
        address: Address,
        clock: Clock,
        ca_file: str | None,
        first: int = 0,
        origin: Origin | None = None,
    ) -> None:
        endpoints = [Endpoint(loaded, address, ca_file, at) for at in range(len(address.hosts))]
        super().__init__(address.shown, clock, endpoints, first, origin)
        self._made_of = (loaded, address, clock, ca_file)
        self._messages = Messages(loaded.stubs)
        self._watching = Watching(self._ready, self._messages)

    @property
    def name(self) -> str:
        return f"gRPC ({library.in_use()[1]})"

    def _call(self, member: Endpoint, call: str, request: Any, end: float) -> Exchange[Any]:
        self._check()
        pack, read = self._messages.calls[call]
        message = pack(request)
        if call != "keepalive":

            def send() -> Exchange[Any]:
                yield from ()
                return member.send(call, message, end)

            return read((yield from member.ask(send, end)), request)
        yield from member.ready(end)
        sent = self._clock.now()
        answers, trouble = member.exchange(call, message, end)
        if trouble is not None and not answers:
            raise trouble
        return {
            each.ID: Kept(each.TTL, each.header.member_id, each.header.raft_term, sent) for each in answers
        }

    def _ready(self, budget: float) -> Endpoint:
        def ready(endpoint: Endpoint, end: float) -> Exchange[Endpoint]:
            self._check()
            yield from endpoint.ready(end)
            return endpoint

        return self.perform(self._in_turn(ready, time.monotonic() + budget, again=True))

    def _check(self) -> None:
        if self.inherited():
            raise inherited(self.where)

    def watch(
        self,
        key: bytes,
        end: bytes,
        start: int,
        heard: Callable[[News], None],
        also: Sequence[bytes] = (),
        past: int = 0,
    ) -> Stream:
        if self.inherited():
            return _NoWatch()
        return self._watching.watch(watched_ranges(key, end, start, also, past), heard)

    def fresh(self) -> PythonEtcd3:
        """See :meth:`lockkit_etcd.cluster.Cluster.fresh`. In a forked child the copy refuses every call."""
        return PythonEtcd3(*self._made_of, self._second(), self.origin)

    def close(self) -> None:
        if not self.inherited():
            self._watching.close()
            for member in self._members:
                member.close()
        super().close()


class _NoWatch:
    """The watch of a forked child: nothing runs."""

    def close(self) -> None:
        """End nothing."""
