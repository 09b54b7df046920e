"""A private Alertmanager."""

from __future__ import annotations

from typing import Any

from support.servers.monitoring import ConfiguredServer

__all__ = ["AlertmanagerServer"]

_CONFIG = """
route:
  receiver: nobody
  group_wait: 0s
receivers:
  - name: nobody
"""


class AlertmanagerServer(ConfiguredServer):
    """One Alertmanager, alone, on loopback, whose receiver sends nothing."""

    api = "/api/v2"

    def __init__(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerMissing: There is no Alertmanager.
        """
        super().__init__(
            "Alertmanager",
            ("prometheus-alertmanager", "alertmanager"),
            _CONFIG,
            "--storage.path={folder}/data",
            "--cluster.listen-address=",
        )

    def alerts(self) -> list[Any]:
        """The alerts that it has, also those that are over but not forgotten yet."""
        found: list[Any] = self.get("alerts")
        return found

    def _ask(self) -> object:
        return self.alerts()
