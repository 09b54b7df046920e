"""A private node_exporter that reads textfiles and nothing else."""

from __future__ import annotations

from pathlib import Path

from support.servers.monitoring import MonitoringServer

__all__ = ["NodeExporter"]


class NodeExporter(MonitoringServer):
    """One node_exporter on loopback.

    Args:
        textfiles: The folder that its textfile collector reads.
    """

    def __init__(self, textfiles: Path) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerMissing: There is no node_exporter.
        """
        super().__init__(
            "node_exporter",
            ("prometheus-node-exporter",),
            "--collector.disable-defaults",
            "--collector.textfile",
            f"--collector.textfile.directory={textfiles}",
        )

    def scrape(self) -> str:
        """The metrics that it has now.

        Raises:
            OSError: The exporter does not answer, or has found an error in a file.
        """
        return self.read("/metrics").decode()

    def _ask(self) -> object:
        return self.scrape()
