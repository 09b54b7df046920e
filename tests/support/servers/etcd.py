"""A private etcd server."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.client
import os
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from lockkit.testing.processes import ServerFailed, free_port, until
from support.servers.etcd_gateway import ROOT, EtcdRefused, EtcdUser, Gateway, covered
from support.servers.programs import find_program
from support.servers.server import Member, unsaid

__all__ = ["EtcdServer", "Place"]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a member is: its name and its two loopback ports."""

    name: str
    port: int
    peer_port: int

    @classmethod
    def free(cls, name: str) -> Place:
        """One where nobody listens at this moment."""
        return cls(name, free_port(), free_port())

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"


class EtcdServer(Member[Place]):
    """One server on 127.0.0.1, in a temporary folder, that keeps its data without waiting for the disk.

    Starts when made; a context manager that stops it and removes its folder::

        guest = EtcdUser("guest", "secret", {"app/": "READ"})
        with EtcdServer(quota_backend_bytes=1 << 20, users=[guest]) as server:
            server.call("kv/put", {"key": b"app/key", "value": b"value"})
            connect(server.url(user="guest", password="secret"))
    """

    def __init__(
        self,
        *,
        program: str = "etcd",
        tls: bool = False,
        client_certificates: bool = False,
        users: Sequence[EtcdUser] = (),
        place: Place | None = None,
        among: Sequence[Place] = (),
        **lines: str | int | float,
    ) -> None:
        """Start one.

        Args:
            program: What to run.
            tls: Clients must speak TLS.
            client_certificates: With ``tls``: and must show a certificate of its authority.
            users: Demand a login, and know these and :data:`ROOT`.
            place: Where it is, as one member of a cluster. Whoever starts that waits until it is ready.
            among: The places of all members.
            lines: Further flags, ``-`` written as ``_``: ``quota_backend_bytes=1 << 20``.

        Raises:
            ServerMissing: A program is not installed.
            ServerFailed: The server did not start.
        """
        self.program = find_program(program)
        self.users = users
        super().__init__(
            "etcd", tls=tls, client_certificates=client_certificates, place=place, among=among, lines=lines
        )

    # -- where it is

    @property
    def port(self) -> int:
        return self.place.port

    def url(self, user: str | None = None, password: str | None = None) -> str:
        """The server's URL; ``etcds:`` with TLS. The client is told the TLS files in another way."""
        return self._url("etcd", user, password)

    # -- what it knows

    def call(
        self,
        path: str,
        document: Mapping[str, Any] | None = None,
        *,
        login: tuple[str, str] | None = None,
        timeout: float = 5.0,
    ) -> Any:
        """Ask its JSON gateway, not by way of the store under test, and return the answer as it came.

        Args:
            path: What follows ``/v3/``, such as ``kv/range``.
            document: The request; bytes in it are sent in base64.
            login: Name and password, on a server with users; of :data:`ROOT` if not said.
            timeout: Seconds.

        Raises:
            EtcdRefused: The server answered with an error.
            OSError: The server did not answer in time, or at all.
        """
        return self._gateway.ask(
            path, document, login=(login or ROOT) if self.users else None, timeout=timeout
        )

    def status(self) -> Any:
        """The server's own view: who leads, at which revision and raft index, which alarms as ``errors``."""
        # Without a login, because that needs a majority.
        return self._gateway.ask("maintenance/status", timeout=1.0)

    @property
    def revision(self) -> int:
        """The revision of the last write, by a linearizable read."""
        answer = self.call("kv/range", {"key": b"\0", "count_only": True})
        return int(answer["header"]["revision"])

    def compact(self, revision: int | None = None) -> int:
        """Make it forget all before a revision, by default before the last one. Returns that revision."""
        at = self.revision if revision is None else revision
        self.call("kv/compaction", {"revision": at, "physical": True})
        return at

    def leases(self) -> list[str]:
        """The ids of all leases."""
        return [each["ID"] for each in self.call("lease/leases").get("leases", [])]

    def wipe(self, prefix: str = "lockkit/") -> None:
        """Throw away all leases, and the keys under a prefix."""
        self.call("kv/deleterange", covered(prefix))
        for lease in self.leases():
            with contextlib.suppress(EtcdRefused):  # it has run out
                self.call("lease/revoke", {"ID": lease})

    def alarms(self) -> list[str]:
        """The alarms that are raised, such as ``NOSPACE``."""
        answer = self.call("maintenance/alarm", {"action": "GET"})
        return [each["alarm"] for each in answer.get("alarms", [])]

    def disarm(self) -> None:
        """Take every alarm back; one that still has its cause comes back with the next write."""
        # One by one: memberID 0 stands for no member, not for all of them.
        for each in self.call("maintenance/alarm", {"action": "GET"}).get("alarms", []):
            self.call("maintenance/alarm", {**each, "action": "DEACTIVATE"})

    def ctl(self, *words: str) -> str:
        """Run ``etcdctl``, as :data:`ROOT` where there are users, and return its output.

        Raises:
            ServerMissing: ``etcdctl`` is not installed.
            ServerFailed: ``etcdctl`` reports an error.
        """
        command = [find_program("etcdctl"), f"--endpoints={self.address}", *words]
        if self.certificates:
            command.append(f"--cacert={self.certificates.ca}")
            if self._client_certificates:
                command += [f"--cert={self.certificates.nameless}", f"--key={self.certificates.nameless_key}"]
        if self.users:
            command.append(f"--user={':'.join(ROOT)}")
        environ = {**os.environ, **unsaid("ETCDCTL_"), "ETCDCTL_API": "3"}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerFailed(f"etcdctl {' '.join(words)}: {done.stderr or done.stdout}")
        return done.stdout

    def requests(self) -> int:
        """How many requests clients have sent so far, by the server's count; a stream counts as one."""
        return self._gateway.counted("grpc_server_started_total")

    def until_serves_peers(self) -> None:
        """Wait until another new member may start.

        A new member asks all others, and waits a second for each that listens but does not answer yet.

        Raises:
            ServerFailed: The server has ended, or takes too long.
        """
        until(lambda: not self.alive or self._serves_peers(), f"{self.place.name} answers its peers")
        self._check_alive()

    def ready(self) -> bool:
        """Whether it answers a read that needs a majority."""
        try:
            self._gateway.ask("kv/range", {"key": b"\0"}, timeout=1.0)
        except EtcdRefused as refused:
            return refused.code in (3, 7, 16)  # without a login; it would not know that without having read
        except OSError:
            return False
        return True

    def demand_logins(self) -> None:
        """Make its users known, if there are any, and let nobody else in. Done already, but for a cluster."""
        if self.users:
            self._gateway.demand_logins(self.users)

    # -- how it starts

    def _begin(self) -> None:
        self.place = Place.free("single")
        self._first_launch()

    def _first_launch(self) -> None:
        self._launch()
        try:
            self.until_ready()
            self.demand_logins()
        except ServerFailed:
            self._process.kill()
            raise

    def _launch(self) -> None:
        self._process.start([self.program, *self._flags()], unsaid("ETCD_"))

    def _flags(self) -> list[str]:
        scheme = "https" if self.certificates else "http"
        client = f"{scheme}://{self.address}"
        flags: dict[str, object] = {
            "name": self.place.name,
            "data-dir": self._data,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": self.place.peer_url,
            "initial-advertise-peer-urls": self.place.peer_url,
            "initial-cluster": ",".join(
                f"{each.name}={each.peer_url}" for each in self._among or [self.place]
            ),
            # Milliseconds. A single server has none to wait for; in a cluster a busy machine may take half a
            # second without a change of leaders. Either way the shortest lease stays at one second.
            "heartbeat-interval": 50 if self._among else 10,
            "election-timeout": 500 if self._among else 100,
            "unsafe-no-fsync": "true",
            "bcrypt-cost": 4,
            "log-level": "warn",
        }
        if self.certificates:
            flags |= {"cert-file": self.certificates.server, "key-file": self.certificates.server_key}
            if self._client_certificates:
                flags |= {"client-cert-auth": "true", "trusted-ca-file": self.certificates.ca}
        flags |= {key.replace("_", "-"): value for key, value in self._lines.items()}
        return [f"--{key}={value}" for key, value in flags.items()]

    def _serves_peers(self) -> bool:
        connection = http.client.HTTPConnection(self.host, self.place.peer_port, timeout=1.0)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/members")
                connection.getresponse()
            except (OSError, http.client.HTTPException):
                return False
        return True

    @property
    def _gateway(self) -> Gateway:
        return Gateway(self.host, self.port, self._trust)

    @functools.cached_property
    def _trust(self) -> ssl.SSLContext | None:
        if self.certificates is None:
            return None
        context = ssl.create_default_context(cafile=self.certificates.ca)
        if self._client_certificates:
            context.load_cert_chain(self.certificates.nameless, self.certificates.nameless_key)
        return context
