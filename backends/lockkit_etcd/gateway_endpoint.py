"""The connections to one member over its gateway, and the login there."""

from __future__ import annotations

import json
import ssl

from lockkit.store.budgets import left
from lockkit.store.connections import Pool
from lockkit.store.spi import Unknown
from lockkit_etcd.failures import Elsewhere, TokenExpired, not_connected, said, unanswered
from lockkit_etcd.gateway_connection import Connection
from lockkit_etcd.gateway_connection import connect as connected
from lockkit_etcd.gateway_json import MEANINGLESS

__all__ = ["Endpoint"]

_OK = 200
_UNWELCOME = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "ACCESS_DENIED")
"""Alerts by which a server ends the handshake; with TLS 1.3 they come when the client thinks that it is over."""
_LONGEST = 1000
"""Characters of an error's text that are passed on."""
_SHOW = "if it wants a client's certificate, add cert_file=...&key_file=..."


class Endpoint:
    """The connections to one member, and the login there.

    Attributes:
        where: ``host:port``.
        pool: The free connections.
        token: The login, once there is one. A member that restarts forgets it.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        login: tuple[str, str] | None,
    ) -> None:
        self.where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.token = b""
        self._host, self._port, self._tls, self._login = host, port, tls, login
        self.pool = Pool(self.new, self.where)
        self._said = b" HTTP/1.1\r\nHost: %b\r\nGrpc-Metadata-hasleader: true\r\n" % self.where.encode()

    def request(self, path: bytes, body: bytes, more: bytes = b"") -> bytes:
        """A request, packed."""
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        return b"".join((b"POST /v3/", path, self._said, self.token, more, length, body))

    def new(self, budget: float) -> Connection:
        """A new connection.

        Raises:
            Refused: There is none to be had.
        """
        try:
            return connected(self._host, self._port, self._tls, budget)
        except OSError as error:
            raise not_connected(error, self.where) from error

    def keep(self, connection: Connection) -> None:
        """Give back a connection whose request was answered."""
        if connection.kept:
            self.pool.keep(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the free connections; those in use follow when their call ends."""
        self.pool.close()

    # -- asking

    def ask(self, path: bytes, body: bytes, until: float, more: bytes = b"", pause: float = 0.0) -> bytes:
        """Ask the member; where the login has expired, twice. ``until`` is by ``time.monotonic()``.

        Raises:
            Refused, Unknown, LeaseGone, LeaseTaken: See :mod:`lockkit_etcd.failures`.
        """
        self.log_in(until)
        token = self.token
        status, text = self._answer(self.request(path, body, more), until, pause)
        if status == _OK:
            return text
        failure = _failed(text, self.where, status)
        if isinstance(failure, TokenExpired) and token:
            if self.token == token:
                self.token = b""
            self.log_in(until)
            status, text = self._answer(self.request(path, body, more), until, pause)
            if status == _OK:
                return text
            failure = _failed(text, self.where, status)
        raise failure

    def log_in(self, until: float) -> None:
        """Log in, if that is needed and not done yet.

        Raises:
            Refused: The login failed.
        """
        if self._login is None or self.token:
            return
        user, password = self._login
        body = json.dumps({"name": user, "password": password}).encode()
        try:
            status, text = self._answer(self.request(b"auth/authenticate", body), until)
        except Unknown as unknown:  # the request that needs the login was not sent
            raise Elsewhere(unknown.error) from unknown
        if status != _OK:
            failure = _failed(text, self.where, status)
            raise Elsewhere(failure.error) if isinstance(failure, Unknown) else failure
        try:
            self.token = b"Authorization: %b\r\n" % json.loads(text)["token"].encode()
        except MEANINGLESS as error:
            raise not_connected("its answer to a login means nothing", self.where) from error

    def _answer(self, request: bytes, until: float, pause: float = 0.0) -> tuple[int, bytes]:
        connection = self.pool.take(left(until))
        try:
            answer = connection.ask(request, until, pause)
        except BaseException as error:
            connection.reset()
            if isinstance(error, ssl.SSLError) and (error.reason or "").endswith(_UNWELCOME):
                raise not_connected(f"{error.reason}; {_SHOW}", self.where) from error
            if isinstance(error, OSError):
                raise unanswered(error, self.where) from error
            raise
        self.keep(connection)
        return answer


def _failed(text: bytes, where: str, status: int) -> Exception:
    """The error to raise for an answer that is no success; a proxy may have written it."""
    try:
        told = json.loads(text)
        told = told.get("error", told)
        code = int(told.get("code", -1))
    except MEANINGLESS:
        return unanswered(f"HTTP {status}: {text[:100].decode(errors='replace')}", where)
    return said(code, str(told.get("message", told))[:_LONGEST], where)
