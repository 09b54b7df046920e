"""Private servers of the Prometheus project: programs that answer over HTTP at the address they are given."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from typing import Any

from lockkit.testing.processes import ServerFailed, free_port, until
from support.servers.programs import find_program
from support.servers.server import Server

__all__ = ["ConfiguredServer", "MonitoringServer"]


class MonitoringServer(Server):
    """One such server, alone, on loopback."""

    def __init__(self, title: str, programs: tuple[str, ...], *options: str) -> None:
        """Start it and wait until it answers.

        Args:
            title: The name of the server, for messages and, in small letters, for its folder.
            programs: The names of its program; the first one that is installed is used.
            options: Options of its program. ``{folder}`` stands for the folder of the server.

        Raises:
            ServerMissing: The program is not installed.
        """
        self._program = find_program(*programs)
        super().__init__(title.lower())
        self._title = title
        self._options = [option.format(folder=self.folder) for option in options]
        self._port = 0
        try:
            self._prepare()
            self._start_somewhere()
        except BaseException:
            self.close()
            raise

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://{self.address}"

    def read(self, path: str) -> bytes:
        """The answer to a request.

        Raises:
            OSError: The server refuses the request, or does not answer.
        """
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=30.0) as answer:
            found: bytes = answer.read()
        return found

    def _prepare(self) -> None:
        """Write the files that the program reads when it starts."""

    def _begin(self) -> None:
        self._port = free_port()
        self._process.start([self._program, f"--web.listen-address={self.address}", *self._options])
        until(self._ready, f"{self._title} answers", 30.0)

    def _ready(self) -> bool:
        if not self.alive:
            raise ServerFailed(f"{self._title} did not start: {self.log}")
        try:
            self._ask()
        except OSError:
            return False
        return True

    def _ask(self) -> object:
        """Send a request that the server answers once it is ready."""
        raise NotImplementedError


class ConfiguredServer(MonitoringServer):
    """One with a configuration file and an API in JSON.

    Attributes:
        api: The path of the API, with which the path of each request begins.
    """

    api: str

    def __init__(self, title: str, programs: tuple[str, ...], config: str, *options: str) -> None:
        """Start it and wait until it answers; see :class:`MonitoringServer`.

        Args:
            title: The name of the server.
            programs: The names of its program.
            config: The text of its configuration.
            options: Further options of its program.

        Raises:
            ServerMissing: The program is not installed.
        """
        self._config = config
        super().__init__(title, programs, "--config.file={folder}/config.yml", *options)

    def get(self, path: str, **parameters: str) -> Any:
        """The answer to a request to the API.

        Raises:
            OSError: The server refuses the request, or does not answer.
        """
        return json.loads(self.read(f"{self.api}/{path}?{urllib.parse.urlencode(parameters)}"))

    def _prepare(self) -> None:
        (self.folder / "config.yml").write_text(self._config)
