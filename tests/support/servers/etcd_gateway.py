"""The JSON gateway of an etcd server, asked without the store under test."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import http
import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ROOT", "EtcdRefused", "EtcdUser", "Gateway", "covered"]

ROOT = ("root", "root")
"""Name and password of the administrator of a server with users."""


class EtcdRefused(RuntimeError):
    """Raised when the server answered with an error.

    Attributes:
        status: The status of HTTP.
        code: The code of gRPC: 5 for not found, 14 for unavailable, and so on; -1 if the answer names none.
        message: In etcd's own words.
        document: The whole answer.
    """

    def __init__(self, status: int, document: Any) -> None:
        super().__init__(f"HTTP {status}: {document}")
        self.status = status
        self.document = document
        facts: Any = document if isinstance(document, dict) else {}
        facts = facts.get("error", facts)  # so the refusal of a stream is wrapped
        self.code = int(facts.get("code", -1))
        self.message = str(facts.get("message", document))


@dataclasses.dataclass(frozen=True)
class EtcdUser:
    """Somebody with a role of the same name.

    Attributes:
        rights: ``READ``, ``WRITE`` or ``READWRITE``, by prefix of keys; ``""`` for all keys.
    """

    name: str
    password: str
    rights: Mapping[str, str]


def covered(prefix: str) -> dict[str, bytes]:
    """``key`` and ``range_end`` of all keys that begin with a prefix; with ``""``, of all keys."""
    key = prefix.encode()
    if not key:
        return {"key": b"\0", "range_end": b"\0"}
    return {"key": key, "range_end": key[:-1] + bytes([key[-1] + 1])}


class Gateway:
    """Where one server answers; a connection of its own for every question."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """With a context, over TLS."""
        self._host = host
        self._port = port
        self._context = context

    def ask(
        self,
        path: str,
        document: Mapping[str, Any] | None = None,
        *,
        login: tuple[str, str] | None = None,
        timeout: float = 5.0,
    ) -> Any:
        """Send one request and return the answer as it came. For the arguments see ``EtcdServer.call``.

        Raises:
            EtcdRefused: The server answered with an error.
            OSError: The server did not answer in time, or at all.
        """
        headers = {}
        if login:
            name, password = login
            answer = self.ask("auth/authenticate", {"name": name, "password": password}, timeout=timeout)
            headers["Authorization"] = answer["token"]
        body = json.dumps(document or {}, default=lambda raw: base64.b64encode(raw).decode())
        with contextlib.closing(self._connection(timeout)) as connection:
            try:
                connection.request("POST", f"/v3/{path}", body, headers)
                response = connection.getresponse()
                text = response.read().decode()
            except http.client.HTTPException as cut:
                raise ConnectionError(f"no whole answer: {cut!r}") from cut
        try:
            said = json.loads(text)
        except ValueError:
            said = text
        if response.status != http.HTTPStatus.OK:
            raise EtcdRefused(response.status, said)
        return said

    def counted(self, metric: str) -> int:
        """The sum of one of its counters."""
        with contextlib.closing(self._connection(5.0)) as connection:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith(f"{metric}{{"))

    def demand_logins(self, users: Sequence[EtcdUser]) -> None:
        """Make these users and :data:`ROOT` known, and let nobody else in."""
        for user in users:
            self.ask("auth/role/add", {"name": user.name})
            for prefix, right in user.rights.items():
                permission = {"permType": right, **covered(prefix)}
                self.ask("auth/role/grant", {"name": user.name, "perm": permission})
        for name, password, role in [
            (*ROOT, "root"),
            *((each.name, each.password, each.name) for each in users),
        ]:
            self.ask("auth/user/add", {"name": name, "password": password})
            self.ask("auth/user/grant", {"user": name, "role": role})
        self.ask("auth/enable")

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self._context:
            return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._context)
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
