"""The check of the whole configuration: all problems in every file, variable and profile."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from lockkit.config import configfiles, layers
from lockkit.config.config import ETC, Config, decide, keywords_layer
from lockkit.config.layers import ARGUMENT, Layer
from lockkit.errors import ConfigError
from lockkit.facts import Finding, Severity
from lockkit.lib.namedtuples import NamedTuple
from lockkit.values.redaction import redact_name

__all__ = ["Examined", "examine"]


class Examined(NamedTuple):
    """The result of :func:`examine`.

    Attributes:
        findings: Findings about every file and variable, and about how they fit together.
        in_use: The configuration that :func:`lockkit.config.load` would return, even if its settings do not
            fit each other; None if a file or variable is wrong.
        others: The configurations that the other profiles would give.
    """

    findings: list[Finding]
    in_use: Config | None = None
    others: Sequence[Config] = ()


def examine(
    url: str | None = None,
    *,
    profile: str | None = None,
    namespace: str | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    etc: str | os.PathLike[str] = ETC,
    home: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    elsewhere: Severity = "error",
) -> Examined:
    """Check every file, variable and profile, and report all problems instead of the first one.

    Each file and variable is checked by itself. If all can be read, their combination is checked: the one
    that :func:`lockkit.config.load` would give with these arguments, and that of each other profile, where
    a problem has the severity ``elsewhere``. Plugins: :func:`lockkit.plugins.checking.check_files`.
    """
    places: dict[str, object] = {"environ": environ, "cwd": cwd, "etc": etc, "home": home, "config": config}
    found = configfiles.look(environ, cwd, etc, home, config)
    layers.warn(found.environment, quietly=True)
    code = keywords_layer({"url": url, "namespace": namespace})
    findings: list[Finding] = []
    for layer in (*found.layers(), code):
        findings += map(_error, layer.problems)
        findings += [
            Finding("config", "warning", warning.message, warning.hint or "") for warning in layer.warnings
        ]
        if not layer.problems and layer is not code and (layer.values or layer in found.files()):
            pinned = ", pinned" if layer.pinned else ""
            tables: tuple[tuple[str, Mapping[str, object]], ...] = (
                ("profiles", layer.profiles),
                ("pools", layer.pools),
                ("plugins", layer.plugins),
                *((f"alerts.{kind}", tables) for kind, tables in layer.alerts.items()),
            )
            named = [f"[{kind}.{redact_name(name)}]" for kind, found_in in tables for name in found_in]
            told = ", ".join([*layer.values, *named]) or "no settings"
            findings.append(Finding("config", "ok", f"{layer.source} is read{pinned}: {told}"))
    if any(finding.severity == "error" for finding in findings):
        return Examined(findings)
    arguments = places | {"url": url, "profile": profile, "namespace": namespace}
    in_use, problems = decide(found, profile, code, arguments)
    findings += dict.fromkeys(map(_error, problems))
    others: list[Config] = []
    for name in sorted(found.profiles() - {found.chosen(profile)}):
        other, more = decide(found, name, Layer(ARGUMENT), places | {"profile": name})
        others += [other] if other else []
        known = {finding[2:] for finding in findings}
        findings += [
            finding._replace(severity=elsewhere) for finding in map(_error, more) if finding[2:] not in known
        ]
    return Examined(findings, in_use, others)


def _error(problem: ConfigError) -> Finding:
    return Finding("config", "error", problem.message, problem.hint or "")
