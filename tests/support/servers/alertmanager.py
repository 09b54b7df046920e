"""A private Alertmanager."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from lockkit.testing.processes import ServerFailed, free_port, until
from support.servers.programs import find_program
from support.servers.server import Server

__all__ = ["AlertmanagerServer"]

_CONFIG = """
route:
  receiver: nobody
  group_wait: 0s
receivers:
  - name: nobody
"""


class AlertmanagerServer(Server):
    """One Alertmanager, alone, on loopback, whose receiver sends nothing."""

    def __init__(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerMissing: There is no Alertmanager.
        """
        self._program = find_program("prometheus-alertmanager", "alertmanager")
        super().__init__("alertmanager")
        self._port = 0
        try:
            self._start_somewhere()
        except BaseException:
            self.close()
            raise

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        """The address of its API."""
        return f"http://{self.address}"

    def alerts(self) -> list[Any]:
        """The alerts that it has, also those that are over but not forgotten yet."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=30.0) as answer:  # noqa: S310 (loopback)
            found: list[Any] = json.load(answer)
        return found

    def _begin(self) -> None:
        self._port = free_port()
        config = self.folder / "alertmanager.yml"
        config.write_text(_CONFIG)
        self._process.start(
            [
                self._program,
                f"--config.file={config}",
                f"--storage.path={self.folder}/data",
                f"--web.listen-address={self.address}",
                "--cluster.listen-address=",
            ]
        )
        until(self._ready, "Alertmanager answers", 30.0)

    def _ready(self) -> bool:
        if not self.alive:
            raise ServerFailed(f"Alertmanager did not start: {self.log}")
        try:
            self.alerts()
        except OSError:
            return False
        return True
