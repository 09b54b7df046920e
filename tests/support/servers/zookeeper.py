"""A private ZooKeeper server."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from lockkit.testing.processes import PATIENCE, ServerFailed, ServerMissing, free_port
from support.servers.server import Member, unsaid
from support.servers.zookeeper_program import (
    SUPER,
    java_command,
    login_file,
    tls_lines,
    zookeeper_installed,
)
from support.servers.zookeeper_session import Session, SessionGone, four_letter_word

__all__ = ["Place", "ZooKeeperServer"]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a member is: its number and its three loopback ports.

    Attributes:
        port: For clients that speak no TLS.
        quorum_port: Where it listens for followers while it leads.
        election_port: Where it listens for the others' votes.
    """

    number: int
    port: int
    quorum_port: int
    election_port: int

    @classmethod
    def free(cls, number: int) -> Place:
        """One where nobody listens at this moment."""
        return cls(number, free_port(), free_port(), free_port())


class ZooKeeperServer(Member[Place]):
    """One server on 127.0.0.1, in a temporary folder, that keeps its data without waiting for the disk.

    Starts when made; a context manager that stops it and removes its folder::

        with ZooKeeperServer(tick=0.1, users={"guest": "secret"}) as server:
            with server.connect() as client:
                client.create("/node", b"value")
            connect(server.url("/chroot", user="guest", password="secret"))

    Attributes:
        tick: Seconds; what the server measures its own time in.
    """

    def __init__(
        self,
        *,
        tick: float = 0.2,
        shortest_session: float | None = None,
        longest_session: float = 60.0,
        tls: bool = False,
        client_certificates: bool = False,
        users: Mapping[str, str] | None = None,
        place: Place | None = None,
        among: Sequence[Place] = (),
        **lines: str | float,
    ) -> None:
        """Start one.

        Args:
            tick: Seconds. Sessions expire up to one later than they should.
            shortest_session: Seconds; what a session's timeout is at least, two ticks if not said.
            longest_session: Seconds; what it is at most.
            tls: Clients that go by the URL must speak TLS.
            client_certificates: With ``tls``: and must show a certificate of its authority.
            users: The users that may log in by SASL (DIGEST-MD5), with passwords. ACLs keep out others, or
                ``enforce_auth_enabled="true", enforce_auth_schemes="sasl"``. The scheme ``digest`` takes any
                name and password.
            place: Where it is, as one member of an ensemble. Whoever starts that waits until it is ready.
            among: The places of all members, as this one is to see them.
            lines: Further lines of its configuration, ``.`` written as ``_``: ``jute_maxbuffer=4096``.

        Raises:
            ServerMissing: A program is not installed.
            ServerFailed: The server did not start.
        """
        if not zookeeper_installed():
            raise ServerMissing("ZooKeeper or Java is not installed; run: make servers")
        self.tick = tick
        self._sessions = (2 * tick if shortest_session is None else shortest_session, longest_session)
        self._users = users
        self._secure_port = 0
        super().__init__(
            "zookeeper",
            tls=tls,
            client_certificates=client_certificates,
            place=place,
            among=among,
            lines=lines,
        )

    # -- where it is

    @property
    def port(self) -> int:
        return self._secure_port if self.certificates else self.place.port

    def url(self, chroot: str = "", user: str | None = None, password: str | None = None) -> str:
        """The server's URL; ``zookeepers:`` with TLS. The client is told the TLS files in another way."""
        return f"{self._url('zookeeper', user, password)}{quote(chroot)}"

    # -- what happens to it

    def expire(self, client_id: tuple[int, bytes]) -> None:
        """End a session, as if silent for too long: its nodes vanish, and its client finds it expired.

        Args:
            client_id: Session and password, as ``KazooClient.client_id`` has them.

        Raises:
            OSError: The server does not answer.
        """
        # The client comes back as soon as it is cut off, and may cut us off in turn.
        for _ in range(100):
            try:
                with Session(self._plain, take_over=client_id) as session:
                    session.end()
                return
            except SessionGone:
                return
            except ConnectionResetError:
                continue
        raise ServerFailed(f"session {client_id[0]:#x} does not end")

    # -- what it knows

    @contextlib.contextmanager
    def connect(self, chroot: str = "") -> Iterator[Any]:
        """A started ``KazooClient`` with all rights, not the backend under test; closed in the end."""
        from kazoo.client import KazooClient

        from support.servers.zookeeper_polling import Polling

        client = KazooClient(
            f"{self.host}:{self.place.port}{chroot}", auth_data=[("digest", SUPER)], handler=Polling()
        )
        try:
            client.start(PATIENCE)
            yield client
        finally:
            client.stop()
            client.close()

    def session(self, **options: Any) -> Session:
        """A session by hand; see :class:`~support.servers.zookeeper_session.Session`."""
        return Session(self._plain, **options)

    def word(self, word: str) -> str:
        """The answer to a four-letter word: ``srvr``, ``mntr``, ``cons``, ``dump``, ``wchp`` and so on.

        Raises:
            OSError: The server does not answer.
        """
        return four_letter_word(self._plain, word)

    def mntr(self) -> dict[str, str]:
        """The server's figures by name, without ``zk_``; none of a server that serves nobody."""
        rows = (line.split("\t", 1) for line in self.word("mntr").splitlines())
        return {row[0].removeprefix("zk_"): row[1] for row in rows if len(row) == 2}

    def requests(self) -> int:
        """How many requests clients have sent so far, by its own count; their pings are among them."""
        return int(self.mntr()["packets_received"])

    @property
    def mode(self) -> str | None:
        """The server's role: ``standalone``, ``leader``, ``follower``; None while it serves nobody."""
        try:
            answer = self.word("srvr")
        except OSError:
            return None
        return next((line[6:] for line in answer.splitlines() if line.startswith("Mode: ")), None)

    def ready(self) -> bool:
        """Whether sessions can be opened, which takes a majority."""
        if self.mode is None:
            return False
        try:
            with Session(self._plain, patience=1.0) as session:
                session.end()
        except (OSError, SessionGone):
            return False
        return True

    # -- how it starts

    @property
    def _plain(self) -> tuple[str, int]:
        return self.host, self.place.port

    def _begin(self) -> None:
        self.place = Place.free(1)
        self._first_launch()

    def _launch(self) -> None:
        self._data.mkdir(mode=0o700, exist_ok=True)
        (self._data / "myid").write_text(f"{self.place.number}\n")
        if self.certificates and not self._secure_port:
            self._secure_port = free_port()
        config = self.folder / "zoo.cfg"
        config.write_text("".join(f"{key}={value}\n" for key, value in self._configuration().items()))
        logins: dict[str, object] = {}
        if self._users:
            logins["java.security.auth.login.config"] = login_file(self.folder, self._users)
        self._process.start(
            java_command(self.folder, config, logins),
            unsaid("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH"),
        )

    def _configuration(self) -> dict[str, object]:
        # ZooKeeper takes an unknown name for a property of that name with `zookeeper.` before it.
        shortest, longest = self._sessions
        lines: dict[str, object] = {
            "tickTime": round(self.tick * 1000),
            "minSessionTimeout": round(shortest * 1000),
            "maxSessionTimeout": round(longest * 1000),
            "dataDir": self._data,
            "clientPort": self.place.port,
            "clientPortAddress": self.host,
            "maxClientCnxns": 0,
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "*",
            "forceSync": "no",
            "preAllocSize": 1024,
        }
        if self._among:
            # In ticks: what a busy machine may take without a change of leaders.
            lines |= {"initLimit": 50, "syncLimit": 10}
            lines |= {
                f"server.{each.number}": f"{self.host}:{each.quorum_port}:{each.election_port}"
                for each in self._among
            }
        if self.certificates:
            lines |= tls_lines(
                self.folder,
                self.certificates,
                port=self._secure_port,
                client_certificates=self._client_certificates,
            )
        if self._users:
            lines["authProvider.sasl"] = "org.apache.zookeeper.server.auth.SASLAuthenticationProvider"
        return lines | {key.replace("_", "."): value for key, value in self._lines.items()}
