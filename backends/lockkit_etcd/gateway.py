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
from lockkit.spi import Refused, Unknown
from lockkit_etcd import gateway_json as wire
from lockkit_etcd.address import Address
from lockkit_etcd.budget import left
from lockkit_etcd.failures import Elsewhere, TokenExpired, inherited, not_connected, said, unanswered
from lockkit_etcd.gateway_line import Line
from lockkit_etcd.gateway_line import connect as connected
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

__all__ = ["Endpoint", "Gateway", "connect"]

_IDLE = 1.0
"""Seconds after which a free connection is looked at before it is used: the server may have closed it."""
_UNUSED = 30.0
"""Seconds after which a connection that others made superfluous is closed, once another is given back."""
_SHARE = 0.6
"""Of what is left of a budget, what one member may use while there are others to ask."""
_FEW, _BODY, _AT_ONCE = 8, 500, 4
"""Leases that a keepalive may name on a persistent connection, in one body at all; bodies under way at once.

See :data:`_WHOLE`."""
_WHOLE = b"Connection: close\r\n"
"""On a connection that is to stay open the gateway reads of a body only what it has when the first answer is ready: some
512 bytes. With this it reads all of it."""

_UNWELCOME = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "ACCESS_DENIED")
"""Alerts by which a server ends the handshake; with TLS 1.3 they come when the client thinks that it is over."""
_SHOW = "if it wants a client's certificate, add cert_file=...&key_file=..."

_MEANINGLESS = (ValueError, KeyError, TypeError, AttributeError)
"""What it leads to to take for an answer what is none."""

T = TypeVar("T")


def connect(address: Address, clock: Clock) -> Gateway:
    """A gateway. Connects when it is first asked.

    Raises:
        ConfigError: A certificate or key cannot be used.
    """
    return Gateway(address, clock)


class Endpoint:
    """The connections to one member, and the login there.

    Attributes:
        where: ``host:port``.
        token: The login, once there is one. A member that restarts forgets it.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self.where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.token = b""
        self._host, self._port, self._tls = host, port, tls
        self._free: list[Line] = []
        self._closed = False
        self._said = b" HTTP/1.1\r\nHost: %b\r\nGrpc-Metadata-hasleader: true\r\n" % self.where.encode()

    def request(self, path: bytes, body: bytes, more: bytes = b"") -> bytes:
        """A request, packed."""
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        return b"".join((b"POST /v3/", path, self._said, self.token, more, length, body))

    def new(self, budget: float) -> Line:
        """A new connection.

        Raises:
            Refused: There is none to be had.
        """
        try:
            return connected(self._host, self._port, self._tls, budget)
        except OSError as error:
            raise not_connected(error, self.where) from error

    def take(self, budget: float) -> Line:
        """A connection that owes nothing.

        Raises:
            Refused: There is none to be had.
        """
        while not self._closed:
            try:
                line = self._free.pop()
            except IndexError:
                return self.new(budget)
            if time.monotonic() - line.since < _IDLE or line.quiet():
                return line
            line.reset()
        raise not_connected("this store is closed", self.where)

    def keep(self, line: Line) -> None:
        """Give back a connection whose request was answered."""
        if not line.kept:
            line.close()
            return
        line.since = now = time.monotonic()
        self._free.append(line)
        try:
            if now - self._free[0].since > _UNUSED:  # the last that was given back is the first to be taken
                self._free.pop(0).close()
        except IndexError:  # others have taken it meanwhile
            pass
        if self._closed:
            self.empty()

    def close(self) -> None:
        """Close the free connections; those in use follow when their call ends."""
        self._closed = True
        self.empty()

    def empty(self) -> None:
        """Close the free connections."""
        while self._free:
            try:
                self._free.pop().close()
            except IndexError:
                return


class Gateway:
    """The transport over the gateway. See :class:`lockkit_etcd.transport.Transport`."""

    name = "JSON gateway"

    def __init__(self, address: Address, clock: Clock, first: int = 0) -> None:
        self.where = address.shown
        self._address = address
        self._clock = clock
        self._tls = _context(address) if address.tls else None
        self._endpoints = [Endpoint(host, port, self._tls) for host, port in address.hosts]
        self._first = first
        self._pid = os.getpid()
        self._streams: set[GatewayStream] = set()

    # -- calls

    def txn(self, request: Txn, budget: float) -> TxnAnswer:
        again = not request.when and all(type(op) is Get for op in request.then)
        return self._call(b"kv/txn", wire.txn_body(request), budget, _txn_answer, again=again)

    def range(self, request: Get, budget: float) -> tuple[Header, Found]:
        return self._call(b"kv/range", wire.range_body(request), budget, _range_answer, again=True)

    def grant(self, lease: int, ttl: int, budget: float) -> Granted:
        body = b'{"ID":"%d","TTL":"%d"}' % (lease, ttl)
        return self._call(b"lease/grant", body, budget, _grant_answer)

    def revoke(self, lease: int, budget: float) -> None:
        self._call(b"lease/revoke", b'{"ID":"%d"}' % lease, budget, wire.header)

    def remaining(self, lease: int, budget: float) -> Remaining:
        body = b'{"ID":"%d"}' % lease
        return self._call(b"lease/timetolive", body, budget, _remaining_answer, again=True)

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
        for thread in others:
            thread.start()
        work()
        for thread in others:
            thread.join(left(end))
        if troubles and not kept:
            raise troubles[0]
        return dict(kept)

    def _keep_alive(self, leases: Sequence[int], budget: float) -> dict[int, Kept]:
        body = b"\n".join([b'{"ID":"%d"}' % lease for lease in leases])
        more = b"" if len(leases) <= _FEW else _WHOLE

        def ask(endpoint: Endpoint, until: float) -> tuple[float, bytes]:
            sent = self._clock.now()
            return sent, self._ask(endpoint, b"lease/keepalive", body, until, more)

        sent, text = self._somewhere(ask, budget, again=True)
        try:
            kept = _kept(_documents(text), sent)
        except _MEANINGLESS:
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
                found.append(
                    _status(endpoint.where, self._ask(endpoint, b"maintenance/status", b"{}", until))
                )
            except (Refused, Unknown) as trouble:
                found.append(trouble)
        return found

    def watch(
        self, key: bytes, end: bytes, start: int, heard: Callable[[News], None], also: Sequence[bytes] = ()
    ) -> Stream:
        body = wire.watch_body(key, end, start, also)

        def opened(budget: float) -> Line:
            def ask(endpoint: Endpoint, until: float) -> Line:
                self._log_in(endpoint, until)
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
        other = Gateway(self._address, self._clock, (self._first + 1) % len(self._endpoints))
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
        text = self._somewhere(
            lambda endpoint, until: self._ask(endpoint, path, body, until), budget, again=again
        )
        try:
            return read(json.loads(text))
        except _MEANINGLESS as error:
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

    def _ask(self, endpoint: Endpoint, path: bytes, body: bytes, until: float, more: bytes = b"") -> bytes:
        """Ask one member; where the login has expired, twice.

        Raises:
            Refused, Unknown, LeaseGone, LeaseTaken: See :mod:`lockkit_etcd.failures`.
        """
        self._log_in(endpoint, until)
        token = endpoint.token
        status, text = _answer(endpoint, endpoint.request(path, body, more), until)
        if status == 200:
            return text
        failure = _failed(text, endpoint.where, status)
        if isinstance(failure, TokenExpired) and token:
            if endpoint.token == token:
                endpoint.token = b""
            self._log_in(endpoint, until)
            status, text = _answer(endpoint, endpoint.request(path, body, more), until)
            if status == 200:
                return text
            failure = _failed(text, endpoint.where, status)
        raise failure

    def _log_in(self, endpoint: Endpoint, until: float) -> None:
        user, password = self._address.user, self._address.password
        if user is None or endpoint.token:
            return
        body = json.dumps({"name": user, "password": password}).encode()
        try:
            status, text = _answer(endpoint, endpoint.request(b"auth/authenticate", body), until)
        except Unknown as unknown:  # what it was for was not sent
            raise Elsewhere(unknown.error) from unknown
        if status != 200:
            failure = _failed(text, endpoint.where, status)
            raise Elsewhere(failure.error) if isinstance(failure, Unknown) else failure
        try:
            endpoint.token = b"Authorization: %b\r\n" % json.loads(text)["token"].encode()
        except _MEANINGLESS as error:
            raise not_connected("its answer to a login means nothing", endpoint.where) from error


def _txn_answer(told: Any) -> TxnAnswer:
    return TxnAnswer(wire.header(told), bool(told.get("succeeded")), wire.answers(told))


def _range_answer(told: Any) -> tuple[Header, Found]:
    return wire.header(told), wire.found(told)


def _grant_answer(told: Any) -> Granted:
    return Granted(wire.header(told), int(told["TTL"]))


def _remaining_answer(told: Any) -> Remaining:
    return Remaining(int(told.get("TTL", 0)), int(told.get("grantedTTL", 0)))


def _only_here(refusal: Refused) -> bool:
    return isinstance(refusal, Elsewhere) or isinstance(refusal.__cause__, OSError)


def _answer(endpoint: Endpoint, request: bytes, until: float) -> tuple[int, bytes]:
    line = endpoint.take(left(until))
    try:
        answer = line.ask(request, until)
    except BaseException as error:
        line.reset()
        if isinstance(error, ssl.SSLError) and (error.reason or "").endswith(_UNWELCOME):
            raise not_connected(f"{error.reason}; {_SHOW}", endpoint.where) from error
        if isinstance(error, OSError):
            raise unanswered(error, endpoint.where) from error
        raise
    endpoint.keep(line)
    return answer


def _failed(text: bytes, where: str, status: int) -> Exception:
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return unanswered(f"HTTP {status}: {text[:100].decode(errors='replace')}", where)
    told = told.get("error", told)
    if not isinstance(told, dict):
        return unanswered(f"HTTP {status}: {told}", where)
    return said(int(told.get("code", -1)), str(told.get("message", told)), where)


def _documents(text: bytes) -> list[dict[str, Any]]:
    """One document a line, the last of them perhaps cut."""
    lines = [line for line in text.split(b"\n") if line]
    try:
        return json.loads(b"[%b]" % b",".join(lines))  # type: ignore[no-any-return]
    except ValueError:
        return json.loads(b"[%b]" % b",".join(lines[:-1]))  # type: ignore[no-any-return]


def _kept(documents: Sequence[Mapping[str, Any]], sent: float) -> dict[int, Kept]:
    """The answers to a body of keepalives; most say the same but for the lease."""
    kept: dict[int, Kept] = {}
    alike: dict[tuple[str, str, str], Kept] = {}
    for each in documents:
        told = each.get("result")
        if told is None:  # the others are not answered
            break
        of = told["header"]
        facts = (told.get("TTL", "0"), of["member_id"], of["raft_term"])
        one = alike.get(facts)
        if one is None:
            ttl, member, term = map(int, facts)
            one = alike[facts] = Kept(ttl, member, term, sent)
        kept[int(told["ID"])] = one
    return kept


def _status(where: str, text: bytes) -> Status:
    told = json.loads(text)
    return Status(
        where,
        told.get("version", "unknown"),
        int(told["header"]["member_id"]),
        int(told.get("leader", 0)),
        int(told.get("raftTerm", 0)),
        int(told.get("dbSize", 0)),
        int(told.get("dbSizeInUse", 0)),
        tuple(told.get("errors", ())),
        bool(told.get("isLearner")),
    )


def _context(address: Address) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
        if address.cert_file and address.key_file:
            context.load_cert_chain(address.cert_file, address.key_file)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise ConfigError(f"{address.shown}: {error}", hint="certificates and keys are PEM files") from None
    return context
