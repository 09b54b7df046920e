"""etcd's own JSON gateway, ``/v3/...`` over persistent connections: no gRPC or protobuf, and safe to fork."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from lockkit.lib.clock import Clock
from lockkit.lib.namedtuples import made
from lockkit.lib.origin import Origin
from lockkit.store.budgets import left
from lockkit.store.certificates import tls_context
from lockkit.store.connecting import connect as connect_socket
from lockkit.store.exchanges import Connect, Exchange, Route, Send
from lockkit_etcd import gateway_json
from lockkit_etcd.address import Address
from lockkit_etcd.cluster import Cluster, Member, watched_ranges
from lockkit_etcd.failures import UNWELCOME, not_connected, said, unanswered
from lockkit_etcd.gateway_http import Connection, Parser, Reply
from lockkit_etcd.gateway_json import MEANINGLESS, decoded
from lockkit_etcd.gateway_watch import GatewayStream
from lockkit_etcd.transport import News, Stream

__all__ = ["Gateway", "connect"]

_FEW = 8
"""The most leases in a keepalive on a connection that stays open; see :data:`_WHOLE`."""
_WHOLE = b"Connection: close\r\n"
"""The header that makes the gateway read a request body to its end. Without it the gateway stops reading when
the first answer is ready, after some 512 bytes."""
_OK = 200
_UNWELCOME = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "ACCESS_DENIED")
"""Alerts by which a server refuses a handshake. With TLS 1.3 they come after the client's part of it."""
_LONGEST = 1000
"""Characters of an error's text that are passed on."""


class _Route(NamedTuple):
    """The route to a member; with ``fresh`` each request gets a new connection."""

    host: str
    port: int
    fresh: bool

    @property
    def where(self) -> str:
        """The member in errors."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def connect(address: Address, clock: Clock) -> Gateway:
    """A gateway. Connects when it is first asked.

    Raises:
        ConfigError: A certificate or key cannot be used.
    """
    return Gateway(address, clock, tls_context(address.files, address.shown) if address.tls else None)


class Gateway(Cluster["_Member"]):
    """The transport over the gateway. See :class:`lockkit_etcd.cluster.Cluster`."""

    name = "JSON gateway"
    yields = True

    def __init__(
        self,
        address: Address,
        clock: Clock,
        tls: ssl.SSLContext | None = None,
        first: int = 0,
        origin: Origin | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        members = [_Member(_Route(host, port, fresh), address) for host, port in address.hosts]
        super().__init__(address.shown, clock, members, first, origin)
        self.tls = tls
        self._address = address
        self._streams: set[GatewayStream] = set()

    def opening(self, route: Route, end: float) -> Exchange[Any]:
        """See :meth:`lockkit.store.spi.Exchanges.opening`."""
        assert isinstance(route, _Route)
        try:
            return (yield Connect((route.host, route.port), end))
        except OSError as error:
            raise not_connected(error, route.where) from error

    def parser(self) -> Parser:
        """See :meth:`lockkit.store.spi.Exchanges.parser`."""
        return Parser()

    def _connect(self, step: Connect) -> Connection:
        return Connection(connect_socket(step.place, self.tls, left(step.end), "lockkit-etcd-connect"))

    def _call(self, member: _Member, call: str, request: Any, end: float) -> Exchange[Any]:
        path, pack, read = gateway_json.CALLS[call]
        more = _WHOLE if call == "keepalive" and len(request) > _FEW else b""
        sent = self._clock.now()
        body = pack(request)
        if member.anonymous:
            text = yield from member.send(path, body, end, more)
        else:
            text = yield from member.ask(partial(member.send, path, body, end, more), end)
        try:
            answer = read(text, sent if call == "keepalive" else request)
        except MEANINGLESS as error:
            raise unanswered(f"cannot understand its answer {text[:40]!r}", member.where) from error
        return answer

    def raw(self, body: bytes, end: float) -> Exchange[Any]:
        """Execute a packed transaction and return the decoded answer. See :meth:`Cluster.txn`."""
        return self._ask("raw", body, end)

    def watch(
        self,
        key: bytes,
        end: bytes,
        start: int,
        heard: Callable[[News], None],
        also: Sequence[bytes] = (),
        past: int = 0,
    ) -> Stream:
        """See :meth:`lockkit_etcd.cluster.Cluster.watch`."""
        body = gateway_json.watch_body(watched_ranges(key, end, start, also, past))

        def begin(member: _Member, until: float) -> Exchange[Connection]:
            yield from member.ready(until)
            connection: Connection = self._performer.open(member.route, until)
            try:
                connection.watched()
                connection.send(member.request(b"watch", body, _WHOLE), until)
            except BaseException as error:
                connection.reset()
                raise unanswered(error, member.where) from error
            return connection

        def opened(until: float) -> Connection:
            return self.perform(self._in_turn(begin, until, again=True))

        stream = GatewayStream(opened, heard, self._streams.discard)
        self._streams.add(stream)
        try:
            stream.start()
        except BaseException:  # the caller has no stream to close
            self._streams.discard(stream)
            stream.close()
            raise
        return stream

    def fresh(self) -> Gateway:
        """See :meth:`lockkit_etcd.cluster.Cluster.fresh`. In a forked child the copy refuses every call."""
        return Gateway(self._address, self._clock, self.tls, self._second(), self.origin, fresh=True)

    def close(self) -> None:
        for stream in list(self._streams):
            stream.close()
        super().close()


class _Member(Member):
    """One member, by way of its gateway.

    Attributes:
        route: The route to it.
    """

    def __init__(self, route: _Route, address: Address) -> None:
        super().__init__(route.where, address)
        self.route = route
        self._keep = _never if route.fresh else _kept
        self._said = b" HTTP/1.1\r\nHost: %b\r\nGrpc-Metadata-hasleader: true\r\n" % self.where.encode()

    def request(self, path: bytes, body: bytes, more: bytes = b"") -> bytes:
        """A request, packed."""
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        return b"".join((b"POST /v3/", path, self._said, self.token or b"", more, length, body))

    def send(self, path: bytes, body: bytes, end: float, more: bytes = b"") -> Exchange[bytes]:
        """Send a request and return the body of the reply.

        Raises:
            Refused, Unknown, LeaseGone, LeaseTaken: See :mod:`lockkit_etcd.failures`.
        """
        reply: Reply
        try:
            (reply,) = yield made(Send, (self.route, self.request(path, body, more), end, 1, self._keep))
        except OSError as error:
            if isinstance(error, ssl.SSLError) and (error.reason or "").endswith(_UNWELCOME):
                raise not_connected(f"{UNWELCOME} ({error.reason})", self.where) from error
            raise unanswered(error, self.where) from error
        if reply.status != _OK:
            raise _failed(reply, self.where)
        return reply.body

    def _log_in(self, user: str, password: str, end: float) -> Exchange[bytes]:
        body = json.dumps({"name": user, "password": password}).encode()
        text = yield from self.send(b"auth/authenticate", body, end)
        try:
            return b"Authorization: %b\r\n" % decoded(text)["token"].encode()
        except MEANINGLESS as error:
            raise not_connected("cannot understand its answer to a login", self.where) from error


def _kept(replies: Sequence[Reply]) -> bool:
    return replies[0].kept


def _never(_replies: Sequence[Reply]) -> bool:
    return False


def _failed(reply: Reply, where: str) -> Exception:
    """The error to raise for an unsuccessful reply, which may come from a proxy."""
    try:
        told = decoded(reply.body)
        told = told.get("error", told)
        code = int(told.get("code", -1))
    except MEANINGLESS:
        return unanswered(f"HTTP {reply.status}: {reply.body[:100].decode(errors='replace')}", where)
    return said(code, str(told.get("message", told))[:_LONGEST], where)
