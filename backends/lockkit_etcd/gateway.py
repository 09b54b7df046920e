"""etcd's own JSON gateway, ``/v3/...`` over persistent connections: no gRPC, no protobuf, and safe in what forks.

A connection is lent to one call at a time and goes back to the free ones when its request was answered. One that owes an
answer is closed with a reset, so that what still lies in this host's buffers is thrown away.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from lockkit.clock import Clock
from lockkit.store.budgets import left
from lockkit_etcd import gateway_json
from lockkit_etcd.address import Address
from lockkit_etcd.failures import Forbidden, unanswered
from lockkit_etcd.gateway_connection import Connection
from lockkit_etcd.gateway_endpoint import Endpoint
from lockkit_etcd.gateway_watch import GatewayStream
from lockkit_etcd.keepalives import in_batches
from lockkit_etcd.members import Members
from lockkit_etcd.tls import tls_context
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

__all__ = ["Gateway", "connect"]

_FEW = 8
"""Leases that a keepalive may name on a connection that stays open, see :data:`_WHOLE`."""
_WHOLE = b"Connection: close\r\n"
"""On a connection that is to stay open the gateway reads of a body only what it has when the first answer is ready: some
512 bytes. With this it reads all of it."""

_PAUSE = 0.002
"""Seconds between two looks at the answers to a body of keepalives, which come one by one."""

T = TypeVar("T")


def connect(address: Address, clock: Clock) -> Gateway:
    """A gateway. Connects when it is first asked.

    Raises:
        ConfigError: A certificate or key cannot be used.
    """
    return Gateway(address, clock, tls_context(address))


class Gateway:
    """The transport over the gateway. See :class:`lockkit_etcd.transport.Transport`."""

    name = "JSON gateway"

    def __init__(
        self, address: Address, clock: Clock, tls: ssl.SSLContext | None = None, first: int = 0, pid: int = 0
    ) -> None:
        self.where = address.shown
        self._address = address
        self._clock = clock
        self._tls = tls
        login = None if address.user is None else (address.user, address.password or "")
        endpoints = [Endpoint(host, port, tls, login) for host, port in address.hosts]
        self._members = Members(address.shown, endpoints, first, pid)
        self._streams: set[GatewayStream] = set()

    # -- calls

    def txn(self, request: Txn, budget: float) -> TxnAnswer:
        again = not request.when and all(type(op) is Get for op in request.then)
        try:
            return self._call(
                b"kv/txn",
                gateway_json.txn_body(request),
                budget,
                lambda told: gateway_json.txn_answer(told, request),
                again=again,
            )
        except Forbidden as refusal:
            raise refusal.asked(self.where, (*request.then, *request.otherwise)) from refusal

    def range(self, request: Get, budget: float) -> tuple[Header, Found]:
        try:
            return self._call(
                b"kv/range",
                gateway_json.range_body(request),
                budget,
                lambda told: gateway_json.range_answer(told, request),
                again=True,
            )
        except Forbidden as refusal:
            raise refusal.asked(self.where, (request,)) from refusal

    def grant(self, lease: int, ttl: int, budget: float) -> Granted:
        body = b'{"ID":"%d","TTL":"%d"}' % (lease, ttl)
        return self._call(b"lease/grant", body, budget, gateway_json.grant_answer)

    def revoke(self, lease: int, budget: float) -> None:
        self._call(b"lease/revoke", b'{"ID":"%d"}' % lease, budget, gateway_json.header)

    def remaining(self, lease: int, budget: float) -> Remaining:
        body = b'{"ID":"%d"}' % lease
        return self._call(b"lease/timetolive", body, budget, gateway_json.remaining_answer, again=True)

    def keepalive(self, leases: Sequence[int], budget: float) -> Mapping[int, Kept]:
        return in_batches(leases, budget, self._keep_alive)

    def _keep_alive(self, leases: Sequence[int], budget: float) -> dict[int, Kept]:
        body = b"\n".join([b'{"ID":"%d"}' % lease for lease in leases])
        more, pause = (b"", 0.0) if len(leases) <= _FEW else (_WHOLE, _PAUSE)

        def ask(endpoint: Endpoint, until: float) -> tuple[float, bytes]:
            sent = self._clock.now()
            return sent, endpoint.ask(b"lease/keepalive", body, until, more, pause)

        sent, text = self._members.ask(ask, budget, again=True)
        try:
            kept = gateway_json.kept_answers(text, sent)
        except gateway_json.MEANINGLESS:
            kept = {}
        if not kept:
            raise unanswered(text.decode(errors="replace")[:200], self.where)
        return kept

    def status(self, budget: float) -> Sequence[Status | Exception]:
        def ask(endpoint: Endpoint, until: float) -> Status:
            text = endpoint.ask(b"maintenance/status", b"{}", until)
            try:
                return gateway_json.status_answer(endpoint.where, text)
            except gateway_json.MEANINGLESS:
                raise unanswered(f"{text[:40]!r} means nothing", endpoint.where) from None

        return self._members.status(ask, budget)

    def watch(
        self, key: bytes, end: bytes, start: int, heard: Callable[[News], None], also: Sequence[bytes] = ()
    ) -> Stream:
        body = gateway_json.watch_body(key, end, start, also)

        def opened(budget: float) -> Connection:
            def ask(endpoint: Endpoint, until: float) -> Connection:
                endpoint.log_in(until)
                connection = endpoint.new(left(until))
                try:
                    connection.watched()
                    connection.send(endpoint.request(b"watch", body, _WHOLE), until)
                except BaseException as error:
                    connection.reset()
                    raise unanswered(error, endpoint.where) from error
                return connection

            return self._members.ask(ask, budget, again=True)

        stream = GatewayStream(opened, heard, self._streams.discard)
        self._streams.add(stream)
        stream.start()
        return stream

    def fresh(self) -> Gateway:
        members = self._members  # a forked child gets one that refuses every call
        return Gateway(self._address, self._clock, self._tls, members.second(), members.pid)

    def close(self) -> None:
        for stream in list(self._streams):
            stream.close()
        self._members.close()

    # -- asking

    def _call(
        self, path: bytes, body: bytes, budget: float, read: Callable[[Any], T], *, again: bool = False
    ) -> T:
        """Ask a member, or the next one where that cannot hurt, and return what its answer says."""
        text = self._members.ask(lambda endpoint, until: endpoint.ask(path, body, until), budget, again=again)
        try:
            return read(json.loads(text))
        except gateway_json.MEANINGLESS as error:
            raise unanswered(f"{text[:40]!r} means nothing", self.where) from error
