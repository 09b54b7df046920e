"""One member over gRPC: its channel, its login, and the meaning of its failures.

After a failure gRPC does not say whether the request was sent, unless no connection could be made. So after a
failure a member is asked for its status before anything else. If it does not answer, the channel is replaced,
because its connection may have died without a sign. gRPC's own retries are off.
"""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lockkit.errors import ConfigError
from lockkit.lib.origin import this_origin
from lockkit.store.budgets import left
from lockkit.store.certificates import tls_context
from lockkit.store.exchanges import Exchange
from lockkit.store.spi import Refused, Unknown
from lockkit_etcd.address import Address
from lockkit_etcd.cluster import Member
from lockkit_etcd.failures import UNWELCOME, Elsewhere, not_connected, said, unanswered
from lockkit_etcd3 import private
from lockkit_etcd3.forks import gate
from lockkit_etcd3.library import Library
from lockkit_etcd3.off_main_thread import call_off_main_thread, end_off_main_thread

__all__ = ["Endpoint", "trusted"]

_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),  # otherwise channels to one address share a connection
    ("grpc.max_receive_message_length", -1),  # an answer too long to be read has been done all the same
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 500),
    # gRPC pings the member during a silent watch and disconnects after 13 s without an answer.
    # A member accepts at most one ping in 5 s (--grpc-keepalive-min-time), and none while there is no call.
    ("grpc.keepalive_time_ms", 8000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.http2.ping_timeout_ms", 5000),
    ("grpc.http2.bdp_probe", 0),  # an unanswered probe keeps that ping from being sent
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
]
_UNSENT = ("failed to connect to all addresses", "DNS resolution failed", "empty address list")
"""The beginnings of gRPC's errors when it had no connection to send a request on."""
_REPEATED = re.compile(r"^.*last error: (?:[A-Z_]+: )?(?:ipv[46]:\S+: )?")
"""The part of such an error that repeats the address."""
_UNWELCOME = "Unwrap failed"
"""gRPC's error for a TLS alert after its part of the handshake; only gRPC's log has the alert itself."""
_CLOSING = 5.0
_SLACK = 0.25
"""Seconds to wait beyond the end of a call's budget, because gRPC may end the call a little late."""
_CANCELLED, _DEADLINE, _UNAVAILABLE = 1, 4, 14


def trusted(address: Address) -> str | None:
    """The file with the authorities to trust; None without TLS.

    Raises:
        ConfigError: No such file exists, or a certificate or key cannot be used.
    """
    if not address.tls:
        return None
    tls_context(address.files, address.shown)
    file = address.files.ca_file or ssl.get_default_verify_paths().cafile
    if file is None:
        raise ConfigError(
            f"{address.shown}: the operating system has no file of trusted certificate authorities",
            hint="write ?ca_file=PATH",
        )
    return file


class Endpoint(Member):
    """One member, by way of a channel."""

    def __init__(self, library: Library, address: Address, ca_file: str | None, at: int) -> None:
        host, port = address.hosts[at]
        self._host = f"[{host}]" if ":" in host else host
        self._port = port
        super().__init__(f"{self._host}:{port}", address)
        self._library = library
        self._ca_file = ca_file
        self._mutex = threading.Lock()
        self._channel: Any = None
        self._calls: dict[str, Callable[..., Any]] = {}
        self._answers = False
        self._closed = False
        self._origin = this_origin()
        gate.closes(self)

    # -- calls; each gives up when ``time.monotonic()`` is at ``end``

    def send(self, name: str, request: Any, end: float) -> Any:
        """Send a request and return the answer.

        Raises:
            Refused, Unknown, LeaseGone, LeaseTaken: See :mod:`lockkit_etcd.failures`.
        """
        return self._through(
            end, lambda: self._call(name)(request, timeout=left(end), metadata=self._metadata())
        )

    def exchange(self, name: str, requests: Iterable[Any], end: float) -> tuple[list[Any], Exception | None]:
        """Send requests on one stream; return the answers, and any failure that ended the stream early.

        Raises:
            Refused: Nothing was sent.
        """
        answers: list[Any] = []

        def call() -> None:
            stream = self._call(name)(iter(requests), timeout=left(end), metadata=self._metadata())
            try:
                answers.extend(stream)
            finally:
                stream.cancel()

        try:
            self._through(end, call)
        except Exception as error:
            return answers, error
        return answers, None

    def listen(
        self, name: str, requests: Iterator[Any], end: float, begun: Callable[[Any], None]
    ) -> Iterator[Any]:
        """Begin an endless stream, and return it, to be iterated.

        ``begun`` is called with the stream before a fork can look for streams to cancel.

        Raises:
            Refused: No connection could be made in time.
        """

        def call() -> Any:
            stream = self._call(name)(requests, metadata=self._metadata())
            begun(stream)
            return stream

        stream: Iterator[Any] = self._through(end, call)
        return stream

    def ready(self, end: float) -> Exchange[None]:
        """Connect if there is no connection, and log in if that is needed.

        Raises:
            Refused: The connection or the login failed.
        """
        if not self._answers:
            self._connect(end)
        yield from super().ready(end)

    def failed(self, error: BaseException) -> Exception:
        """The exception to raise for one that gRPC raised in the middle of a call."""
        if isinstance(error, ValueError):  # the channel was closed meanwhile
            return not_connected(error, self.where)
        if not isinstance(error, self._library.grpc.RpcError):
            self._answers = False
            return unanswered(repr(error), self.where)
        code, text = error.code().value[0], str(error.details())
        if code == _UNAVAILABLE and text.startswith(_UNSENT):
            self._answers = False
            text = _REPEATED.sub("", text)
            return not_connected(f"{UNWELCOME} ({text})" if _UNWELCOME in text else text, self.where)
        if code in (_CANCELLED, _DEADLINE, _UNAVAILABLE) and not text.startswith("etcdserver:"):
            self._answers = False
            return unanswered("time out" if code == _DEADLINE else text, self.where)
        return said(code, text, self.where)

    def let_go(self) -> None:
        """Close the channel, before a fork. The next call makes another."""
        channel, self._channel = self._channel, None
        self._answers = False
        if channel is not None and self._origin.is_here():
            end_off_main_thread(channel.close, _CLOSING)

    def close(self) -> None:
        """Close the channel; calls under way there end."""
        with self._mutex:
            self._closed = True
            channel, self._channel = self._channel, None
        _close(channel)

    # -- inside

    def _through(self, end: float, call: Callable[[], Any]) -> Any:
        """Call into gRPC while no thread forks, on a thread where no signal handler runs."""

        def gated() -> Any:
            try:
                if not gate.enter(left(end)):
                    raise not_connected("this process is being forked", self.where)
                return call()
            finally:
                gate.leave()

        try:
            return call_off_main_thread(gated, left(end) + _SLACK)
        except Refused:
            raise
        except Exception as error:
            raise self.failed(error) from error

    def _call(self, name: str) -> Callable[..., Any]:
        with self._mutex:
            if self._closed:
                raise not_connected("this store is closed", self.where)
            if self._channel is None:
                self._open()
            return self._calls[name]

    def _open(self) -> None:
        stubs = self._library.stubs
        client = self._library.client(
            host=self._host,
            port=self._port,
            ca_cert=self._ca_file,
            cert_cert=self._address.files.cert_file,
            cert_key=self._address.files.key_file,
            grpc_options=_OPTIONS,
        )
        channel = private.channel(client)
        kv, lease = stubs.KVStub(channel), stubs.LeaseStub(channel)
        self._calls = {
            "txn": kv.Txn,
            "range": kv.Range,
            "grant": lease.LeaseGrant,
            "revoke": lease.LeaseRevoke,
            "keepalive": lease.LeaseKeepAlive,
            "remaining": lease.LeaseTimeToLive,
            "watch": stubs.WatchStub(channel).Watch,
            "status": stubs.MaintenanceStub(channel).Status,
            "login": stubs.AuthStub(channel).Authenticate,
        }
        self._channel = channel

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        token = self.token
        return (("hasleader", "true"), ("token", token)) if token else (("hasleader", "true"),)

    def _connect(self, end: float) -> None:
        """Make sure that the member answers, on a new channel if necessary.

        Raises:
            Elsewhere: The member does not answer, or has no leader.
        """
        old = self._channel
        now = time.monotonic()
        try:
            if old is not None:
                try:
                    self._probe(now + (end - now) / 2)
                except Unknown:
                    self._replace(old)
            if not self._answers:
                self._probe(end)
        except Unknown as unknown:
            raise not_connected(unknown.error.message, self.where) from unknown

    def _probe(self, end: float) -> None:
        try:
            self.send("status", self._library.stubs.StatusRequest(), end)
        except Elsewhere:
            raise
        except Refused:  # a refusal is an answer
            pass
        self._answers = True

    def _replace(self, old: Any) -> None:
        with self._mutex:
            if self._channel is not old:  # another thread was faster
                return
            self._channel = None
        _close(old)

    def _log_in(self, user: str, password: str, end: float) -> Exchange[str]:
        yield from ()
        token: str = self.send(
            "login", self._library.stubs.AuthenticateRequest(name=user, password=password), end
        ).token
        return token


def _close(channel: Any) -> None:
    def gated() -> None:
        try:
            gate.enter(_CLOSING)
            channel.close()
        finally:
            gate.leave()

    if channel is not None:
        end_off_main_thread(gated, _CLOSING + _SLACK)
