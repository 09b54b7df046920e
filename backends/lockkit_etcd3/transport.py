"""The transport by way of python-etcd3: what the store asks of etcd, over gRPC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lockkit.clock import Clock
from lockkit.errors import BackendUnavailable
from lockkit.store.spi import Refused
from lockkit_etcd.address import Address
from lockkit_etcd.failures import Forbidden
from lockkit_etcd.keepalives import in_batches
from lockkit_etcd.members import Members
from lockkit_etcd.transport import (
    Found,
    Get,
    Granted,
    Header,
    Kept,
    News,
    Remaining,
    Status,
    Stream,
    Txn,
    TxnAnswer,
)
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
        ConfigError: The library cannot be imported, or a certificate or key cannot be used; the error says why.
        Refused: This process was forked from one that used gRPC in a way that leaves none for it.
    """
    loaded = library.load()
    if trouble := forks.trouble():
        hint = "connect in the children only, spawn instead of forking, or write etcd://"
        raise Refused(BackendUnavailable(f"{address.shown}: {trouble}", hint=hint), retry=False)
    return PythonEtcd3(loaded, address, clock, trusted(address))


class PythonEtcd3:
    """A :class:`lockkit_etcd.transport.Transport` over gRPC."""

    def __init__(
        self,
        loaded: Library,
        address: Address,
        clock: Clock,
        ca_file: str | None,
        first: int = 0,
        pid: int = 0,
    ) -> None:
        self.where = address.shown
        self._made_of = (loaded, address, clock, ca_file)
        self._clock = clock
        self._messages = Messages(loaded.stubs)
        endpoints = [Endpoint(loaded, address, ca_file, at) for at in range(len(address.hosts))]
        self._members = Members(address.shown, endpoints, first, pid)
        self._watching = Watching(self._ready, self._messages)

    @property
    def name(self) -> str:
        return f"gRPC ({library.in_use()[1]})"

    # -- calls

    def txn(self, request: Txn, budget: float) -> TxnAnswer:
        again = not request.when and all(type(op) is Get for op in request.then)
        try:
            answer = self._call("txn", self._messages.txn(request), budget, again=again)
        except Forbidden as refusal:
            raise refusal.asked(self.where, (*request.then, *request.otherwise)) from refusal
        return self._messages.txn_answer(answer)

    def range(self, request: Get, budget: float) -> tuple[Header, Found]:
        try:
            answer = self._call("range", self._messages.range(request), budget, again=True)
        except Forbidden as refusal:
            raise refusal.asked(self.where, (request,)) from refusal
        return self._messages.header(answer), self._messages.found(answer)

    def grant(self, lease: int, ttl: int, budget: float) -> Granted:
        return self._messages.granted(self._call("grant", self._messages.grant(lease, ttl), budget))

    def revoke(self, lease: int, budget: float) -> None:
        self._call("revoke", self._messages.revoke(lease), budget)

    def remaining(self, lease: int, budget: float) -> Remaining:
        request = self._messages.remaining(lease)
        return self._messages.remaining_of(self._call("remaining", request, budget, again=True))

    def keepalive(self, leases: Sequence[int], budget: float) -> Mapping[int, Kept]:
        return in_batches(leases, budget, self._keep_alive)

    def status(self, budget: float) -> Sequence[Status | Exception]:
        request = self._messages.status()
        return self._members.status(
            lambda endpoint, end: self._messages.status_of(
                endpoint.where, endpoint.ask("status", request, end)
            ),
            budget,
        )

    def watch(
        self, key: bytes, end: bytes, start: int, heard: Callable[[News], None], also: Sequence[bytes] = ()
    ) -> Stream:
        if self._members.inherited():
            return _NoWatch()
        return self._watching.watch(key, end, start, heard, also)

    def fresh(self) -> PythonEtcd3:
        # A forked child gets one that refuses every call.
        return PythonEtcd3(*self._made_of, self._members.second(), self._members.pid)

    def close(self) -> None:
        if not self._members.inherited():
            self._watching.close()
            self._members.close()

    # -- asking

    def _call(self, name: str, request: Any, budget: float, *, again: bool = False) -> Any:
        return self._members.ask(lambda endpoint, end: endpoint.ask(name, request, end), budget, again=again)

    def _keep_alive(self, leases: Sequence[int], budget: float) -> dict[int, Kept]:
        requests = self._messages.keepalives(leases)

        def ask(endpoint: Endpoint, end: float) -> dict[int, Kept]:
            endpoint.ready(end)
            sent = self._clock.now()
            answers, trouble = endpoint.exchange("keepalive", requests, end)
            if trouble is not None and not answers:
                raise trouble
            return {
                each.ID: Kept(each.TTL, each.header.member_id, each.header.raft_term, sent)
                for each in answers
            }

        return self._members.ask(ask, budget, again=True)

    def _ready(self, budget: float) -> Endpoint:
        def ready(endpoint: Endpoint, end: float) -> Endpoint:
            endpoint.ready(end)
            return endpoint

        return self._members.ask(ready, budget, again=True)


class _NoWatch:
    """The watch of a forked child: nothing runs."""

    def close(self) -> None:
        """End nothing."""
