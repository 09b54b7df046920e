"""A private Prometheus."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.servers.monitoring import ConfiguredServer

__all__ = ["PrometheusServer"]


class PrometheusServer(ConfiguredServer):
    """One Prometheus on loopback that scrapes addresses four times a second and evaluates rules each second.

    Args:
        targets: The addresses to scrape, ``host:port``.
        rules: Files with rules.
    """

    api = "/api/v1"

    def __init__(self, targets: Sequence[str], rules: Sequence[Path] = ()) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerMissing: There is no Prometheus.
        """
        config = {
            "global": {"scrape_interval": "250ms", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [{"job_name": "lockkit", "static_configs": [{"targets": list(targets)}]}],
        }
        text = json.dumps(config)  # JSON is YAML
        super().__init__("Prometheus", ("prometheus",), text, "--storage.tsdb.path={folder}/data")

    def query(self, expression: str) -> list[Any]:
        """The series that an expression has now.

        Raises:
            OSError: The expression is wrong, or the server does not answer.
        """
        found: list[Any] = self.get("query", query=expression)["data"]["result"]
        return found

    def rules(self) -> list[Any]:
        """All rules that it has loaded, with the health of each."""
        return [rule for group in self.get("rules")["data"]["groups"] for rule in group["rules"]]

    def _ask(self) -> object:
        return self.query("1")
