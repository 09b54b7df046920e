"""An oracle for Kubernetes: the owner of a claim is dead if its pod has ended or is gone."""

from __future__ import annotations

import json
import re
import subprocess

import msgspec

from lockkit import hookimpl
from lockkit.config.config import Config, plugin_settings
from lockkit.facts import Owner


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The table ``[plugins.pod-oracle]``."""

    namespace: str
    prefix: str
    """Only pods whose names start like this: others may be in a cluster that this oracle does not see."""

    def __post_init__(self) -> None:
        if not self.prefix:
            raise ValueError("prefix must not be empty: a pod of another cluster would count as dead")


class PodOracle:
    settings: Settings | None = None

    @hookimpl
    def lockkit_settings(self, config: Config) -> None:
        self.settings = plugin_settings(config, "pod-oracle", Settings)

    @hookimpl
    def lockkit_owner_alive(self, owner: Owner) -> bool | None:
        settings = self.settings
        pod = owner.pod or ""
        # Any user of the store can write an owner: only what is the name of a pod becomes an argument.
        if (
            settings is None
            or not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", pod)
            or not pod.startswith(settings.prefix)
            or owner.pod_namespace not in (None, settings.namespace)
        ):
            return None  # not ours
        line = [
            "kubectl",
            "get",
            "pod",
            pod,
            "--namespace",
            settings.namespace,
            "--ignore-not-found",
            "-o",
            "json",
        ]
        answer = subprocess.run(line, capture_output=True, text=True, check=True, timeout=4).stdout
        if not answer.strip():
            return False  # deleted: its containers have ended, unless somebody used --force
        phase = json.loads(answer).get("status", {}).get("phase")
        return {"Running": True, "Pending": True, "Succeeded": False, "Failed": False}.get(phase)


plugin = PodOracle()
