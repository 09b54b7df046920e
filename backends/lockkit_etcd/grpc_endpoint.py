"""One member by way of gRPC: the channel to it, the login there, and what its failures mean.

gRPC does not tell of a failure whether the request was sent. Only that no connection could be made is certain, so it is
made sure of first that there is one: a member which has not answered since the last failure is asked for its status
before anything else. Where it is silent, the channel is replaced: its connection may be dead without saying so. gRPC's
own retries are off.
"""

from __future__ import annotations

import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lockkit.errors import ConfigError
from lockkit.store.spi import Refused, Unknown
from lockkit_etcd.address import Address
from lockkit_etcd.budget import left
from lockkit_etcd.failures import Elsewhere, TokenExpired, not_connected, said, unanswered
from lockkit_etcd.grpc_forks import gate
from lockkit_etcd.grpc_package import Package

__all__ = ["Endpoint", "trusted"]

_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),  # else channels to one place share a connection
    ("grpc.max_receive_message_length", -1),  # what is too long to be read has been done all the same
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A watch that hears nothing asks whether the other side lives: 13 s, then it is cut. A member takes no more than
    # one such ping in 5 s (--grpc-keepalive-min-time), and none while there is no call.
    ("grpc.keepalive_time_ms", 8000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.http2.ping_timeout_ms", 5000),
    ("grpc.http2.bdp_probe", 0),  # such a probe without an answer keeps that ping from being sent
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
]
_UNSENT = ("failed to connect to all addresses", "DNS resolution failed", "empty address list")
"""What gRPC says when it had no connection to send a request on."""
_PLACE = re.compile(r"^.*last error: (?:[A-Z_]+: )?(?:ipv[46]:\S+: )?")
"""What it says before that, of what is told anyway."""
_CLOSING = 5.0
_CANCELLED, _DEADLINE, _UNAVAILABLE = 1, 4, 14


def trusted(address: Address) -> str | None:
    """The file of the authorities to trust; None without TLS.

    Raises:
        ConfigError: There is none, or a certificate or key cannot be used.
    """
    if not address.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
        if address.cert_file and address.key_file:
            context.load_cert_chain(address.cert_file, address.key_file)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise ConfigError(f"{address.shown}: {error}", hint="certificates and keys are PEM files") from None
    file = address.ca_file or ssl.get_default_verify_paths().cafile
    if file is None:
        raise ConfigError(
            f"{address.shown}: the operating system has no file of whom it trusts", hint="write ?ca_file=PATH"
        )
    return file


class Endpoint:
    """One member.

    Attributes:
        where: ``host:port``.
    """

    def __init__(self, package: Package, address: Address, ca_file: str | None, at: int) -> None:
        host, port = address.hosts[at]
        self._host = f"[{host}]" if ":" in host else host
        self._port = port
        self.where = f"{self._host}:{port}"
        self._package = package
        self._address = address
        self._ca_file = ca_file
        self._mutex = threading.Lock()
        self._channel: Any = None
        self._calls: dict[str, Callable[..., Any]] = {}
        self._proven = False
        self._closed = False
        self._token = ""
        self._pid = os.getpid()
        gate.closes(self)

    # -- calls; in each, ``end`` is when ``time.monotonic()`` is too late

    def ask(self, name: str, request: Any, end: float) -> Any:
        """Send a request, where the login has expired twice, and return the answer.

        Raises:
            Refused, Unknown, LeaseGone, LeaseTaken: See :mod:`lockkit_etcd.failures`.
        """
        self.ready(end)
        token = self._token
        try:
            return self._send(name, request, end)
        except TokenExpired:
            if not token:
                raise
            self.forget(token)
            self.ready(end)
            return self._send(name, request, end)

    def talk(self, name: str, requests: Iterable[Any], end: float) -> tuple[list[Any], Exception | None]:
        """Send requests on a stream, and return what was answered, and what ended it before its end, if anything did.

        Raises:
            Refused: Nothing was sent.
        """
        self.ready(end)
        answers: list[Any] = []
        trouble: Exception | None = None

        def call() -> None:
            stream = self._call(name)(iter(requests), timeout=left(end), metadata=self._metadata())
            try:
                answers.extend(stream)
            finally:
                stream.cancel()

        try:
            self._through(end, call)
        except Exception as error:
            trouble = error
        return answers, trouble

    def listen(
        self, name: str, requests: Iterator[Any], end: float, begun: Callable[[Any], None]
    ) -> Iterator[Any]:
        """Begin a stream without an end, and return it, to be iterated. ``begun`` is given it, to be cancelled.

        Raises:
            Refused: There is no connection to be had in time.
        """

        def call() -> Any:
            stream = self._call(name)(requests, metadata=self._metadata())
            begun(stream)  # before a fork looks for what there is
            return stream

        self.ready(end)
        stream: Iterator[Any] = self._through(end, call)
        return stream

    def ready(self, end: float) -> None:
        """See to it that there is a connection, and a login if one is needed.

        Raises:
            Refused: There is none to be had.
        """
        if not self._proven:
            self._prove(end)
        if self._address.user is not None and not self._token:
            self._log_in(end)

    def forget(self, token: str | None = None) -> None:
        """The login is not known there any more: this one, or whichever there is."""
        if token in (None, self._token):
            self._token = ""

    def failed(self, error: BaseException) -> Exception:
        """What to raise for what gRPC raised in the middle of a call."""
        if isinstance(error, ValueError):  # it was closed meanwhile
            return _not_here(error, self.where)
        if not isinstance(error, self._package.grpc.RpcError):
            self._proven = False
            return unanswered(repr(error), self.where)
        code, text = error.code().value[0], str(error.details())
        if code == _UNAVAILABLE and text.startswith(_UNSENT):
            self._proven = False
            return _not_here(_PLACE.sub("", text), self.where)
        if code in (_CANCELLED, _DEADLINE, _UNAVAILABLE) and not text.startswith("etcdserver:"):
            self._proven = False
            return unanswered("time out" if code == _DEADLINE else text, self.where)
        return said(code, text, self.where)

    def let_go(self) -> None:
        """Close the channel, before a fork. The next call makes another."""
        channel, self._channel = self._channel, None
        self._proven = False
        if channel is not None and self._pid == os.getpid():
            channel.close()

    def close(self) -> None:
        """Close the channel; what is under way there ends."""
        with self._mutex:
            self._closed = True
            channel, self._channel = self._channel, None
        self._close(channel)

    # -- inside

    def _send(self, name: str, request: Any, end: float) -> Any:
        return self._through(
            end, lambda: self._call(name)(request, timeout=left(end), metadata=self._metadata())
        )

    def _through(self, end: float, call: Callable[[], Any]) -> Any:
        """Do something with gRPC while nobody forks."""
        try:
            if not gate.enter(left(end)):
                raise _not_here("this process is being forked", self.where)
            return call()
        except Exception as error:
            if isinstance(error, Refused):
                raise
            raise self.failed(error) from error
        finally:
            gate.leave()

    def _call(self, name: str) -> Callable[..., Any]:
        with self._mutex:
            if self._closed:
                raise _not_here("this store is closed", self.where)
            if self._channel is None:
                self._open()
            return self._calls[name]

    def _open(self) -> None:
        rpc = self._package.rpc
        client = self._package.client(
            host=self._host,
            port=self._port,
            ca_cert=self._ca_file,
            cert_cert=self._address.cert_file,
            cert_key=self._address.key_file,
            grpc_options=_OPTIONS,
        )
        channel = client.channel
        kv, lease, watch = rpc.KVStub(channel), rpc.LeaseStub(channel), rpc.WatchStub(channel)
        self._calls = {
            "txn": kv.Txn,
            "range": kv.Range,
            "grant": lease.LeaseGrant,
            "revoke": lease.LeaseRevoke,
            "keepalive": lease.LeaseKeepAlive,
            "remaining": lease.LeaseTimeToLive,
            "watch": watch.Watch,
            "status": rpc.MaintenanceStub(channel).Status,
            "login": rpc.AuthStub(channel).Authenticate,
        }
        self._channel = channel

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = self._token
        return (("hasleader", "true"), ("token", token)) if token else (("hasleader", "true"),)

    def _prove(self, end: float) -> None:
        """Have it answer something.

        Raises:
            Elsewhere: It does not, or it has no leader.
        """
        old = self._channel
        now = time.monotonic()
        try:
            if old is not None:
                try:
                    self._probe(now + (end - now) / 2)
                except Unknown:
                    self._replace(old)
            if not self._proven:
                self._probe(end)
        except Unknown as unknown:
            raise _not_here(unknown.error.message, self.where) from unknown

    def _probe(self, end: float) -> None:
        try:
            self._send("status", self._package.rpc.StatusRequest(), end)
        except Elsewhere:
            raise
        except Refused:  # whatever it has against this, it is there
            pass
        self._proven = True

    def _replace(self, old: Any) -> None:
        with self._mutex:
            if self._channel is not old:  # another thread was faster
                return
            self._channel = None
        self._close(old)

    @staticmethod
    def _close(channel: Any) -> None:
        if channel is not None:
            try:
                gate.enter(_CLOSING)
                channel.close()
            finally:
                gate.leave()

    def _log_in(self, end: float) -> None:
        request = self._package.rpc.AuthenticateRequest(
            name=self._address.user, password=self._address.password
        )
        try:
            self._token = self._send("login", request, end).token
        except Unknown as unknown:  # what it was for was not sent
            raise Elsewhere(unknown.error) from unknown


def _not_here(error: BaseException | str, where: str) -> Elsewhere:
    refused = not_connected(error, where)
    return Elsewhere(refused.error, retry=refused.retry)
