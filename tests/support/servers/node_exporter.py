"""A private node_exporter that reads textfiles and nothing else."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from lockkit.testing.processes import ServerFailed, free_port, until
from support.servers.programs import find_program
from support.servers.server import Server

__all__ = ["NodeExporter"]


class NodeExporter(Server):
    """One node_exporter on loopback.

    Args:
        textfiles: The folder that its textfile collector reads.
    """

    def __init__(self, textfiles: Path) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerMissing: There is no node_exporter.
        """
        self._program = find_program("prometheus-node-exporter")
        super().__init__("node-exporter")
        self._port = 0
        self._textfiles = textfiles
        try:
            self._start_somewhere()
        except BaseException:
            self.close()
            raise

    @property
    def port(self) -> int:
        return self._port

    def scrape(self) -> str:
        """The metrics that it has now.

        Raises:
            OSError: The exporter does not answer, or has found an error in a file.
        """
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=30.0) as answer:
            text: str = answer.read().decode()
        return text

    def _begin(self) -> None:
        self._port = free_port()
        self._process.start(
            [
                self._program,
                "--collector.disable-defaults",
                "--collector.textfile",
                f"--collector.textfile.directory={self._textfiles}",
                f"--web.listen-address={self.address}",
            ]
        )
        until(self._ready, "node_exporter answers", 30.0)

    def _ready(self) -> bool:
        if not self.alive:
            raise ServerFailed(f"node_exporter did not start: {self.log}")
        try:
            self.scrape()
        except OSError:
            return False
        return True
