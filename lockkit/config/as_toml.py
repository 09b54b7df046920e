"""Settings in TOML: a value, and the file that ``lockkit config init`` writes."""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.config.settings import TABLES, Setting, Value
from lockkit.values.redaction import redact, redact_name

__all__ = ["pool_as_toml", "template", "toml"]


def toml(setting: Setting, value: Value) -> str:
    """A value as it is written in a file: ``"30s"``, ``true``, ``["a"]``; "-" if it is not set."""
    if value is None:
        return f'"{setting.endless}"' if setting.kind == "limit" else "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_quoted(redact_name(name)) for name in value)}]"
    if isinstance(value, str):
        return _quoted(redact(value) if setting.key == "url" else value)
    if setting.kind == "count":
        return f"{value:.0f}"
    if value == int(value):
        for size, unit in ((3600, "h"), (60, "m")):
            if value and value % size == 0:
                return f'"{int(value) // size}{unit}"'
        return f'"{int(value)}s"'
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _quoted(text: str) -> str:
    escaped = "".join(
        f"\\{char}" if char in '\\"' else char if char.isprintable() else f"\\U{ord(char):08x}"
        for char in text
    )
    return f'"{escaped}"'


def pool_as_toml(members: Mapping[str, int]) -> str:
    """The members of a pool as a file has them: a list, or a table if one of them has a capacity above 1."""
    if set(members.values()) == {1}:
        return f"[{', '.join(map(_quoted, members))}]"
    return f"{{{', '.join(f'{_quoted(name)} = {capacity}' for name, capacity in members.items())}}}"


def template() -> str:
    """The configuration file of ``lockkit config init``, with every setting commented out."""
    lines = [
        (
            "# lockkit's settings. Each is shown with its default, or with an "
            "example; uncomment what you change."
        ),
        '# Durations are written "500ms", "30s", "10m", "2h" or "1d", or as a number of seconds.',
        "",
    ]
    for table, settings in TABLES.items():
        lines += [f"#[{table}]"] if table else []
        for key, setting in settings.items():
            lines.append(f"# {setting.meaning}")
            if setting.kind in ("choice", "flag", "count"):
                lines.append(f"# Allowed: {setting.expects()}.")
            value = setting.default
            if value is None and setting.kind != "limit":
                lines.append("# Not set by default; for instance:")
                value = setting.example
            lines += [f"#{key} = {toml(setting, value)}", ""]
    lines += [
        "# Settings under a name, chosen by --profile, LOCKKIT_PROFILE or connect(profile=...).",
        "#[profiles.gpu]",
        '#url = "redis://localhost:6379/0"',
        "",
        '# The members of a pool, from which `lockkit run --pool cards` and client.pool("cards") take some.',
        "#[pools.cards]",
        '#members = ["0", "1"]',
        "# Members that are shared have a capacity: members = {0 = 80, 1 = 80}",
        "",
        "# A rule of alerts that is changed: lockkit alerts rules",
        "#[alerts.rules.timeouts]",
        "#above = 0.2",
        "",
        "# A plugin's own settings stand under its distribution's name: [plugins.NAME]",
        "",
    ]
    return "\n".join(lines)
