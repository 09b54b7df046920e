"""etcd's JSON gateway, as far as a gate needs it: one transaction a request, and the login."""

from __future__ import annotations

import http.client
import json
import socket
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Protocol

from lockkit.errors import BackendUnavailable, OutcomeUnknown, PermissionDenied
from lockkit.store import certificates
from lockkit.store.connecting import connect
from lockkit.store.spi import Refused, Unknown
from lockkit.store.urls import Url, at

__all__ = ["Gateway", "Transactor", "bytes_of", "text_of"]

_USAGE = "write etcd://host1:2379,host2:2379, or etcds:// for TLS"
_REQUEST = 2.0
"""Seconds that one request may take."""
_REFUSALS: tuple[tuple[int, str, bool], ...] = (
    # gRPC code, a part of etcd's message, whether to ask again. With one of these nothing was done.
    (3, "request is too large", False),
    (3, "user name is empty", False),
    (3, "invalid user ID or password", False),
    (7, "permission denied", False),
    (8, "too many requests", True),
    (14, "no leader", True),
)
_EXPIRED = ((16, "invalid auth token"), (3, "revision of auth store is old"))


class Transactor(Protocol):
    """Anything that sends one transaction to etcd. ``etcd3gw.Etcd3Client`` fits as it is."""

    def transaction(self, txn: Mapping[str, Any], /) -> Mapping[str, Any]:
        """Send ``POST /v3/kv/txn`` once.

        Args:
            txn: The body: ``compare``, ``success`` and ``failure`` as etcd's gateway reads them; keys and values in base64.

        Returns:
            Mapping: The answer as it came: ``succeeded``, and ``responses`` with ``response_range``.

        Raises:
            Exception: There was no answer; the gate then repeats the transaction. An error that is certainly a refusal is raised
                as :class:`lockkit.store.spi.Refused`.
        """


def text_of(raw: bytes) -> str:
    """Bytes as the gateway writes them."""
    return b64encode(raw).decode()


def bytes_of(text: str) -> bytes:
    """Bytes as the gateway has written them."""
    return b64decode(text)


class Gateway:
    """The members that a URL names; see :class:`Transactor`. One connection for each request."""

    def __init__(self, url: str) -> None:
        read = Url(url, "etcd", _USAGE)
        if read.scheme not in ("etcd", "etcds") or read.path.strip("/"):
            raise read.wrong("not a URL of etcd")
        tls = read.scheme == "etcds"
        options = read.options(certificates.OPTIONS)
        files = certificates.read_files(read, options, None if tls else "write etcds://")
        self._user, self._password = read.login("write etcd://user:password@host", named=True)
        self._hosts = read.hosts(2379)
        self._tls = certificates.tls_context(files, read.shown) if tls else None
        self._token: str | None = None
        self.shown = read.shown

    def transaction(self, txn: Mapping[str, Any], /) -> Mapping[str, Any]:
        """Send a transaction to the first member that can be reached.

        Raises:
            Refused: The transaction was not done.
            Unknown: No answer, or one that does not say so.
        """
        end = time.monotonic() + _REQUEST
        if self._user is not None and self._token is None:
            login = {"name": self._user, "password": self._password or ""}
            self._token = str(self._post("auth/authenticate", login, end)["token"])
        return self._post("kv/txn", txn, end)

    def _post(self, path: str, body: Mapping[str, Any], end: float) -> Mapping[str, Any]:
        connected, where = self._connected(end)
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self._token is not None:
            headers["Authorization"] = self._token
        conn = http.client.HTTPConnection("etcd")
        try:
            connected.settimeout(max(end - time.monotonic(), 0.05))
            conn.sock = connected
            conn.request("POST", f"/v3/{path}", json.dumps(body), headers)
            answer = conn.getresponse()
            said: Any = json.loads(answer.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            text = str(error) or type(error).__name__
            raise Unknown(OutcomeUnknown(f"no answer from {where}: {text}")) from error
        finally:
            conn.close()
            connected.close()
        if answer.status == http.HTTPStatus.OK and isinstance(said, dict):
            return said
        raise self._failed(said, where)

    def _connected(self, end: float) -> tuple[socket.socket, str]:
        told = []
        for turn, place in enumerate(self._hosts):
            now = time.monotonic()
            try:
                share = (end - now) / (len(self._hosts) - turn)
                return connect(place, self._tls, share, "lockkit-guard-connect"), at(*place)
            except OSError as error:
                told.append(f"{at(*place)}: {error}")
        raise Refused(BackendUnavailable(f"cannot reach {self.shown}: {'; '.join(told)}"))

    def _failed(self, said: object, where: str) -> Refused | Unknown:
        document = said if isinstance(said, dict) else {}
        code, message = document.get("code"), str(document.get("message", said))
        told = f"{where}: {message[:300]}"
        if any(code == theirs and words in message for theirs, words in _EXPIRED):
            self._token = None
            return Refused(PermissionDenied(told, hint="the login has expired"))
        for theirs, words, again in _REFUSALS:
            if code == theirs and words in message:
                kind = PermissionDenied if "permission" in words or "user" in words else BackendUnavailable
                hint = "the role needs readwrite on the key and on its record" if code == 7 else None
                return Refused(kind(told, hint=hint), retry=again)
        return Unknown(OutcomeUnknown(told))
