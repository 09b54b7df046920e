"""A private PostgreSQL server for tests: on a free loopback port, in a temporary folder that goes with it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from psycopg.pq import ConnStatus, PGconn

from lockkit.testing.processes import (
    ServerFailed,
    ServerMissing,
    ServerProcess,
    free_port,
    scratch_folder,
    until,
)
from lockkit.testing.server_clock import ServerClock

__all__ = ["PostgresServer", "programs"]

SUPERUSER = "lockkit_test"
PASSWORD = "hunter2"  # nobody's; tests look for it where it must not be


def programs() -> Path:
    """Where Debian, or somebody's PATH, has the newest PostgreSQL server.

    Raises:
        ServerMissing: Nowhere.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    if initdb := shutil.which("initdb"):
        return Path(initdb).parent
    raise ServerMissing("the PostgreSQL server is not installed; run: apt-get install postgresql")


class PostgresServer:
    """One server. It never waits for the disk, and keeps its data all the same.

    Attributes:
        clock: The wall clock of the server, which the test moves; None for the machine's.
    """

    def __init__(self, *, clock: bool = False, auth: str = "scram-sha-256", **settings: str | int) -> None:
        """Start one.

        Args:
            clock: Whether the test moves its wall clock.
            auth: How it lets people in (pg_hba.conf); by password takes 10 ms of a processor each time.
            settings: Further lines of postgresql.conf.

        Raises:
            ServerMissing: The programs are not installed.
            ServerFailed: The server did not start.
        """
        self._bin = programs()
        self.folder = scratch_folder("postgres")
        self._data = self.folder / "data"
        self._process = ServerProcess(self.folder)
        self._as: list[str] = []
        self.port = 0
        self._auth = auth
        self._settings = settings
        try:
            self.clock = ServerClock(self.folder) if clock else None
            self._become_somebody()
            self._initdb()
            self._start_somewhere()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def url(
        self,
        database: str = "postgres",
        user: str = SUPERUSER,
        password: str | None = PASSWORD,
        **options: str,
    ) -> str:
        """The URL of a store in a database."""
        login = user if password is None else f"{user}:{password}"
        query = "&".join(f"{key}={quote(value)}" for key, value in options.items())
        return f"postgres-lock://{login}@127.0.0.1:{self.port}/{database}" + (f"?{query}" if query else "")

    def sql(self, statement: str, *words: str, database: str = "postgres") -> list[list[str | None]]:
        """Return the result of a statement, over a connection that is not the store's."""
        conn = PGconn.connect(self.conninfo(database))
        try:
            if conn.status != ConnStatus.OK:
                raise ServerFailed(conn.error_message.decode())
            result = conn.exec_params(statement.encode(), [word.encode() for word in words] or None)
            if message := result.error_message:
                raise ServerFailed(message.decode())
            rows = range(result.ntuples)
            return [
                [value.decode() if (value := result.get_value(row, column)) is not None else None
                 for column in range(result.nfields)]
                for row in rows
            ]  # fmt: skip
        finally:
            conn.finish()

    def conninfo(self, database: str = "postgres") -> bytes:
        """For libpq."""
        return f"postgresql://{SUPERUSER}:{PASSWORD}@127.0.0.1:{self.port}/{database}".encode()

    # -- what happens to it

    @property
    def alive(self) -> bool:
        return self._process.alive

    def stop(self) -> None:
        """Shut it down: clients are disconnected, nothing is lost."""
        self._process.signal(signal.SIGINT)
        until(lambda: not self.alive, "it shuts down")
        self._process.stop()

    def kill(self) -> None:
        """Let it crash, and its workers with it. Shared memory goes when the last of them has noticed."""
        self._process.kill()
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def start(self) -> None:
        """Start it again where it was."""
        self._launch()

    @contextlib.contextmanager
    def paused(self, worker: int) -> Iterator[None]:
        """Let the worker behind one connection stand still: it answers nothing."""
        os.kill(worker, signal.SIGSTOP)
        try:
            until(lambda: "T (stopped)" in Path(f"/proc/{worker}/status").read_text(), "it stands still")
            yield
        finally:
            os.kill(worker, signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its folder."""
        if self.alive:
            self._process.signal(
                signal.SIGQUIT
            )  # its workers end with it, which they would not after SIGKILL
            self._process.stop()
        self._process.remove()

    # -- how it starts

    def _become_somebody(self) -> None:
        """PostgreSQL refuses to run as root."""
        if os.geteuid() != 0:
            return
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            user = pwd.getpwnam("nobody")
        os.chown(self.folder, user.pw_uid, user.pw_gid)
        self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]

    def _initdb(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD + "\n")
        secret.chmod(0o644)
        command = [
            *self._as, str(self._bin / "initdb"), "--no-sync", "--no-instructions",
            "--encoding=UTF8", "--locale=C",
            f"--username={SUPERUSER}", f"--auth={self._auth}", f"--pwfile={secret}", f"--pgdata={self._data}",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerFailed(f"initdb failed:\n{done.stdout}\n{done.stderr}")
        lines: dict[str, str | int] = {
            "listen_addresses": "'127.0.0.1'",
            "unix_socket_directories": f"'{self.folder}'",
            "max_connections": 200,
            "shared_buffers": "'32MB'",
            "fsync": "off",  # what a process wrote outlives it; only a power cut would tell
            "logging_collector": "off",
            "dynamic_shared_memory_type": "mmap",
            **self._settings,
        }
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{key} = {value}\n" for key, value in lines.items())

    def _start_somewhere(self) -> None:
        for _ in range(10):
            self.port = free_port()
            try:
                self._launch()
                return
            except ServerFailed:
                if "Address already in use" not in self._process.last_words():
                    raise
                self._process.log.unlink()
        raise ServerFailed("no free port in ten attempts")

    def _launch(self) -> None:
        command = [*self._as, str(self._bin / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        self._process.start(command, self.clock.environ if self.clock else None)
        try:
            until(lambda: not self.alive or self._answers(), "it answers")
        except ServerFailed:
            self._process.kill()
            raise
        if not self.alive:
            self._process.kill()
            raise ServerFailed(f"postgres did not start:\n{self._process.last_words()}")

    def _answers(self) -> bool:
        conn = PGconn.connect(self.conninfo())
        try:
            return conn.status == ConnStatus.OK
        finally:
            conn.finish()
