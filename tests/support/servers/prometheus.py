"""A private Prometheus."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lockkit.testing.processes import ServerFailed, free_port, until
from support.servers.programs import find_program
from support.servers.server import Server

__all__ = ["PrometheusServer"]


class PrometheusServer(Server):
    """One Prometheus on loopback, which scrapes some addresses four times a second and evaluates rules once a second.

    Args:
        targets: The addresses to scrape, ``host:port``.
        rules: Files with rules.
    """

    def __init__(self, targets: Sequence[str], rules: Sequence[Path] = ()) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerMissing: There is no Prometheus.
        """
        self._program = find_program("prometheus")
        super().__init__("prometheus")
        self._port = 0
        self._config: Mapping[str, object] = {
            "global": {"scrape_interval": "250ms", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [{"job_name": "lockkit", "static_configs": [{"targets": list(targets)}]}],
        }
        try:
            self._start_somewhere()
        except BaseException:
            self.close()
            raise

    @property
    def port(self) -> int:
        return self._port

    def query(self, expression: str) -> list[Any]:
        """The series that an expression has now.

        Raises:
            OSError: The expression is wrong, or the server does not answer.
        """
        found: list[Any] = self._get("query", query=expression)["result"]
        return found

    def rules(self) -> list[Any]:
        """All rules that it has loaded, with the health of each."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **parameters: str) -> Any:
        address = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=30.0) as answer:
            return json.load(answer)["data"]

    def _begin(self) -> None:
        self._port = free_port()
        config = self.folder / "prometheus.yml"
        config.write_text(json.dumps(self._config))  # JSON is YAML
        self._process.start(
            [
                self._program,
                f"--config.file={config}",
                f"--storage.tsdb.path={self.folder}/data",
                f"--web.listen-address={self.address}",
            ]
        )
        until(self._ready, "Prometheus answers", 30.0)

    def _ready(self) -> bool:
        if not self.alive:
            raise ServerFailed(f"Prometheus did not start: {self.log}")
        try:
            self.query("1")
        except OSError:
            return False
        return True
