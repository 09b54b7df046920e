"""A private Redis or Valkey server."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lockkit.testing.processes import ServerFailed, free_port, until
from lockkit.testing.server_clock import ServerClock
from support.servers.certificates import Certificates
from support.servers.programs import find_program
from support.servers.server import Server

__all__ = ["RedisServer"]

# fmt: off
_NOT_BY_CLIENTS = frozenset({
    "info", "del", "exists", "get", "hdel", "hget", "hmget", "hset", "pexpire", "pexpireat", "pttl",
    "publish", "set", "time",
    "zadd", "zrange", "zrangebyscore", "zrank", "zrem", "zremrangebyscore", "zscore",
})
# fmt: on
"""Commands of scripts, which the server counts like those of clients; and the one that asks for counts."""


class RedisServer(Server):
    """One server on 127.0.0.1 and on a unix socket, in a temporary folder, without persistence.

    Starts when made; a context manager that stops it and removes its folder::

        with RedisServer(databases=4, user="guest on >secret ~* +@read") as server:
            server.cli("SET", "key", "value")
            connect(server.url(db=1, user="guest", password="secret"))

    Attributes:
        socket: Path of the unix socket.
        certificates: With ``tls``, what clients need; None without.
        clock: The clock it was started on, if it is not the machine's.
    """

    def __init__(
        self,
        *,
        program: str | None = None,
        tls: bool = False,
        clock: bool | ServerClock = False,
        login: tuple[str, str] | None = None,
        as_sentinel: bool = False,
        **lines: str | int | Sequence[str],
    ) -> None:
        """Start one.

        Args:
            program: ``redis-server`` or ``valkey-server``; by default the first that is installed.
            tls: TLS only, with a client's certificate unless ``tls_auth_clients="optional"``.
            clock: Give it a clock of its own, or this one.
            login: User and password for :meth:`cli`, where the default user may not do everything.
            as_sentinel: Whether the server is a sentinel, configured by ``sentinel=["monitor ..."]``.
            lines: Further lines of its configuration, ``-`` written as ``_``; several of a kind in a list.

        Raises:
            ServerMissing: A program is not installed.
            ServerFailed: The server did not start.
        """
        self.program = find_program(program) if program else find_program("redis-server", "valkey-server")
        super().__init__("redis")
        self.socket = self.folder / "socket"
        self._port = 0
        self._mode = ["--sentinel"] if as_sentinel else []
        self._login = login
        self._lines = lines
        self._client: Any = None
        try:
            self.certificates = Certificates(self.folder) if tls else None
            self.clock = ServerClock(self.folder) if clock is True else clock or None
            self._start_somewhere()
        except BaseException:
            self.close()
            raise

    # -- where it is

    @property
    def port(self) -> int:
        return self._port

    def url(self, db: int = 0, user: str | None = None, password: str | None = None) -> str:
        """The server's URL over TCP; ``rediss:`` with TLS. The client gets the TLS files in another way."""
        scheme = "rediss" if self.certificates else "redis"
        login = "" if password is None else f"{quote(user or '', safe='')}:{quote(password, safe='')}@"
        return f"{scheme}://{login}{self.address}/{db}"

    def socket_url(self, db: int = 0) -> str:
        """The server's URL over the unix socket."""
        return f"unix://{quote(str(self.socket))}?db={db}"

    # -- what happens to it

    def stop(self) -> None:
        self._hang_up()
        super().stop()

    def kill(self) -> None:
        self._hang_up()
        super().kill()

    def start(self) -> None:
        """Start it again where it was.

        Raises:
            ServerFailed: The server did not start; somebody may have taken its port.
        """
        self._launch()

    def restart(self, *, lose_data: bool) -> None:
        """Start it again on the same port, with its data or empty.

        Without ``lose_data`` a running server saves first; a killed one has what its configuration saved.
        """
        if lose_data:
            self.kill()
            (self.folder / "dump.rdb").unlink(missing_ok=True)
            shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        elif self.alive:
            self.cli("SAVE")
            self.stop()
        self._launch()
        if "save" not in self._lines:
            (self.folder / "dump.rdb").unlink(missing_ok=True)  # or it would be back after the next crash

    def close(self) -> None:
        self._hang_up()
        super().close()

    # -- what it knows

    def cli(self, *words: str | bytes | int | float, db: int = 0) -> Any:
        """Send one command over the unix socket and return the answer as it came: bytes, int, list or None.

        Raises:
            redis.RedisError: It refused, or does not answer within seconds.
        """
        if self._client is None:
            self._client = self.connect()
        if db:
            with self.connect(db=db) as other:
                return other.execute_command(*words)
        return self._client.execute_command(*words)

    def connect(self, db: int = 0) -> Any:
        """A plain ``redis.Redis`` over the unix socket, not the backend under test. Close it.

        Not said in its type: some versions of redis-py have typed ``execute_command``, others have not.
        """
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        user, password = self._login or (None, None)
        client = redis.Redis(
            unix_socket_path=str(self.socket),
            db=db,
            username=user,
            password=password,
            protocol=2,
            socket_timeout=5.0,
            retry=Retry(NoBackoff(), 0),
        )
        client.response_callbacks.clear()
        return client

    def time(self) -> float:
        """The server's TIME, in seconds since the epoch."""
        seconds, micros = self.cli("TIME")
        return int(seconds) + int(micros) / 1e6

    def commands(self) -> Mapping[str, Mapping[str, str]]:
        """The server's count of each command: ``calls``, ``usec``, ...; those from scripts included."""
        lines = self.cli("INFO", "commandstats").decode().splitlines()
        return {
            name.removeprefix("cmdstat_"): dict(fact.split("=", 1) for fact in facts.split(","))
            for name, _, facts in (line.partition(":") for line in lines if line.startswith("cmdstat_"))
        }

    def requests(self) -> int:
        """How many commands clients have sent, as far as that can be told from what scripts called."""
        return sum(
            int(facts["calls"]) for name, facts in self.commands().items() if name not in _NOT_BY_CLIENTS
        )

    # -- how it starts

    def _begin(self) -> None:
        self._port = free_port()
        self._launch()

    def _launch(self) -> None:
        self.socket.unlink(missing_ok=True)
        if not (self._mode and self._config.exists()):
            # A sentinel keeps what it has learned in its configuration.
            self._config.write_text(self._configuration())
        environ = self.clock.environ if self.clock else {}
        self._process.start([self.program, str(self._config), *self._mode], environ)
        try:
            until(lambda: not self.alive or self.ready(), "it answers")
        except ServerFailed:
            self._process.kill()
            raise
        if not self.alive:
            self._process.kill()
            raise ServerFailed(f"{self.program} did not start:\n{self.log}")

    @property
    def _config(self) -> Path:
        return self.folder / "redis.conf"

    def _configuration(self) -> str:
        lines: dict[str, str | int | Sequence[str]] = {
            "bind": self.host,
            "port": 0 if self.certificates else self.port,
            "unixsocket": str(self.socket),
            "unixsocketperm": 700,
            "dir": str(self.folder),
            "daemonize": "no",
            "logfile": '""',
            "loglevel": "notice",
        }
        if not self._mode:
            lines |= {"save": '""', "appendonly": "no"}
        if self.clock:
            # jemalloc's thread waits for a time of this clock; a past one would keep a processor busy.
            lines |= {"jemalloc-bg-thread": "no"}
        if self.certificates:
            lines |= {
                "tls-port": self.port,
                "tls-ca-cert-file": str(self.certificates.ca),
                "tls-cert-file": str(self.certificates.server),
                "tls-key-file": str(self.certificates.server_key),
            }
        lines |= {key.replace("_", "-"): value for key, value in self._lines.items()}
        written = []
        for key, value in lines.items():
            several = [str(value)] if isinstance(value, (str, int)) else value
            written += [f"{key} {each}\n" for each in several]
        return "".join(written)

    def ready(self) -> bool:
        """Whether it answers."""
        import redis

        try:
            with self.connect() as client:
                client.ping()
            return True
        except redis.AuthenticationError:
            return True  # it answers; whether `login` suits the configuration shows in the first command
        except (redis.ConnectionError, redis.TimeoutError):
            return False
        except redis.ResponseError:
            return True

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
