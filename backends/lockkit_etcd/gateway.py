"""etcd's own JSON gateway, ``/v3/...`` over persistent connections: no gRPC, no protobuf, and safe in what forks.

A connection is lent to one call at a time and goes back to the free ones when its request was answered. One that owes an
answer is closed with a reset, so that what still lies in this host's buffers is thrown away.
"""

from __future__ import annotations

import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from lockkit.clock import Clock
from lockkit.errors import ConfigError
from lockkit.store.spi import Refused, Unknown
from lockkit_etcd import gateway_json as wire
from lockkit_etcd.address import Address
from lockkit_etcd.budget import left
from lockkit_etcd.failures import Elsewhere, Forbidden, inherited, unanswered
from lockkit_etcd.gateway_endpoint import Endpoint
from lockkit_etcd.gateway_line import Line
from lockkit_etcd.gateway_watch import GatewayStream
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

_SHARE = 0.6
"""Of what is left of a budget, what one member may use while there are others to ask."""
_FEW, _BODY, _AT_ONCE = 8, 500, 4
"""Leases that a keepalive may name on a persistent connection, in one body at all; bodies under way at once.

See :data:`_WHOLE`."""
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
    return Gateway(address, clock, _context(address) if address.tls else None)


class Gateway:
    """The transport over the gateway. See :class:`lockkit_etcd.transport.Transport`."""

    name = "JSON gateway"

    def __init__(
        self, address: Address, clock: Clock, tls: ssl.SSLContext | None = None, first: int = 0
    ) -> None:
        self.where = address.shown
        self._address = address
        self._clock = clock
        self._tls = tls
        login = None if address.user is None else (address.user, address.password or "")
        self._endpoints = [Endpoint(host, port, tls, login) for host, port in address.hosts]
        self._first = first
        self._pid = os.getpid()
        self._streams: set[GatewayStream] = set()

    # -- calls

    def txn(self, request: Txn, budget: float) -> TxnAnswer:
        again = not request.when and all(type(op) is Get for op in request.then)
        try:
            return self._call(
                b"kv/txn",
                wire.txn_body(request),
                budget,
                lambda told: wire.txn_answer(told, request),
                again=again,
            )
        except Forbidden as refusal:
            raise refusal.asked(self.where, (*request.then, *request.otherwise)) from refusal

    def range(self, request: Get, budget: float) -> tuple[Header, Found]:
        try:
            return self._call(
                b"kv/range",
                wire.range_body(request),
                budget,
                lambda told: wire.range_answer(told, request),
                again=True,
            )
        except Forbidden as refusal:
            raise refusal.asked(self.where, (request,)) from refusal

    def grant(self, lease: int, ttl: int, budget: float) -> Granted:
        body = b'{"ID":"%d","TTL":"%d"}' % (lease, ttl)
        return self._call(b"lease/grant", body, budget, wire.grant_answer)

    def revoke(self, lease: int, budget: float) -> None:
        self._call(b"lease/revoke", b'{"ID":"%d"}' % lease, budget, wire.header)

    def remaining(self, lease: int, budget: float) -> Remaining:
        body = b'{"ID":"%d"}' % lease
        return self._call(b"lease/timetolive", body, budget, wire.remaining_answer, again=True)

    def keepalive(self, leases: Sequence[int], budget: float) -> Mapping[int, Kept]:
        end = time.monotonic() + budget
        kept: dict[int, Kept] = {}
        bodies = [leases[at : at + _BODY] for at in range(0, len(leases), _BODY)]
        troubles: list[Refused | Unknown] = []

        def work() -> None:
            while bodies:
                try:
                    some = bodies.pop()
                except IndexError:
                    return
                try:
                    kept.update(self._keep_alive(some, left(end)))
                except (Refused, Unknown) as trouble:
                    troubles.append(trouble)

        others = [
            threading.Thread(target=work, name="lockkit-etcd-keepalive", daemon=True)
            for _ in range(min(len(bodies), _AT_ONCE) - 1)
        ]
        started: list[threading.Thread] = []
        for thread in others:
            try:
                thread.start()
            except RuntimeError:  # there can be no more threads
                break
            started.append(thread)
        work()
        for thread in started:
            thread.join(left(end))
        if troubles and not kept:
            raise troubles[0]
        return dict(kept)

    def _keep_alive(self, leases: Sequence[int], budget: float) -> dict[int, Kept]:
        body = b"\n".join([b'{"ID":"%d"}' % lease for lease in leases])
        more, pause = (b"", 0.0) if len(leases) <= _FEW else (_WHOLE, _PAUSE)

        def ask(endpoint: Endpoint, until: float) -> tuple[float, bytes]:
            sent = self._clock.now()
            return sent, endpoint.ask(b"lease/keepalive", body, until, more, pause)

        sent, text = self._somewhere(ask, budget, again=True)
        try:
            kept = wire.kept_answers(text, sent)
        except wire.MEANINGLESS:
            kept = {}
        if not kept:
            raise unanswered(text.decode(errors="replace")[:200], self.where)
        return kept

    def status(self, budget: float) -> Sequence[Status | Exception]:
        end = time.monotonic() + budget
        found: list[Status | Exception] = []
        for many, endpoint in zip(range(len(self._endpoints), 0, -1), self._endpoints, strict=True):
            until = time.monotonic() + left(end) / many
            try:
                text = endpoint.ask(b"maintenance/status", b"{}", until)
            except (Refused, Unknown) as trouble:
                found.append(trouble)
                continue
            try:
                found.append(wire.status_answer(endpoint.where, text))
            except wire.MEANINGLESS:
                found.append(unanswered(f"{text[:40]!r} means nothing", endpoint.where))
        return found

    def watch(
        self, key: bytes, end: bytes, start: int, heard: Callable[[News], None], also: Sequence[bytes] = ()
    ) -> Stream:
        body = wire.watch_body(key, end, start, also)

        def opened(budget: float) -> Line:
            def ask(endpoint: Endpoint, until: float) -> Line:
                endpoint.log_in(until)
                line = endpoint.new(left(until))
                try:
                    line.watched()
                    line.send(endpoint.request(b"watch", body, _WHOLE), until)
                except BaseException as error:
                    line.reset()
                    raise unanswered(error, endpoint.where) from error
                return line

            return self._somewhere(ask, budget, again=True)

        stream = GatewayStream(opened, heard, self._streams.discard)
        self._streams.add(stream)
        stream.start()
        return stream

    def fresh(self) -> Gateway:
        first = (self._first + 1) % len(self._endpoints)
        other = Gateway(self._address, self._clock, self._tls, first)
        other._pid = self._pid  # a forked child gets none that is good for anything
        return other

    def close(self) -> None:
        for stream in list(self._streams):
            stream.close()
        for endpoint in self._endpoints:
            endpoint.close()

    # -- asking

    def _call(
        self, path: bytes, body: bytes, budget: float, read: Callable[[Any], T], *, again: bool = False
    ) -> T:
        """Ask a member, or the next one where that cannot hurt, and return what its answer says."""
        text = self._somewhere(lambda endpoint, until: endpoint.ask(path, body, until), budget, again=again)
        try:
            return read(json.loads(text))
        except wire.MEANINGLESS as error:
            raise unanswered(f"{text[:40]!r} means nothing", self.where) from error

    def _somewhere(self, ask: Callable[[Endpoint, float], T], budget: float, *, again: bool) -> T:
        """Ask the members in turn until one has answered; one that has been asked and is silent ends it, unless ``again``.

        Raises:
            Refused, Unknown: None has.
        """
        if self._pid != os.getpid():
            raise inherited(self.where)
        end = time.monotonic() + budget
        many = len(self._endpoints)
        if many == 1:
            return ask(self._endpoints[0], end)
        first = self._first
        for turn in range(many):
            at = (first + turn) % many
            now = time.monotonic()
            until = end if turn == many - 1 else now + max(end - now, 0.0) * _SHARE
            try:
                return ask(self._endpoints[at], until)
            except (Refused, Unknown) as trouble:
                if isinstance(trouble, Unknown) or _only_here(trouble):
                    if self._first == at:
                        self._first = (at + 1) % many
                    more = turn < many - 1 and time.monotonic() < end
                    if more and (again or isinstance(trouble, Refused)):
                        continue
                raise
        raise AssertionError("unreachable")


def _only_here(refusal: Refused) -> bool:
    return isinstance(refusal, Elsewhere) or isinstance(refusal.__cause__, OSError)


def _context(address: Address) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
        if address.cert_file and address.key_file:
            context.load_cert_chain(address.cert_file, address.key_file)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise ConfigError(f"{address.shown}: {error}", hint="certificates and keys are PEM files") from None
    return context
