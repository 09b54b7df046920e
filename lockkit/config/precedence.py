"""The precedence of the layers of settings: which of them wins.

The layers, of which a later one wins over an earlier one, are: defaults, ``/etc/lockkit/config.toml``,
``~/.config/lockkit/config.toml``, the project's file, ``LOCKKIT_*``, the URL's query, keywords. A profile
wins over the files; a profile chosen by keyword (``--profile gpu``) also wins over ``LOCKKIT_*``. With
``pinned = true``, the values set in /etc win over everything except keywords.

With each value goes its source: the file, variable or keyword that set it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lockkit.config.layers import Found, Layer, split_query
from lockkit.config.settings import Value
from lockkit.errors import ConfigError
from lockkit.values.redaction import redact_name

__all__ = ["alerts", "plugins", "pools", "settings"]


def settings(
    found: Found, profile: str | None, code: Layer
) -> tuple[dict[str, Value], dict[str, str], list[ConfigError]]:
    """The settings that any layer sets.

    Returns:
        The values, the source of each, and the problems of the URL's query.
    """
    below, pins = _stack(found, profile)
    values, sources = _merge([*below, *pins, code])
    if "?" not in str(values.get("url", "")):
        return values, sources, []
    bare, query = split_query(str(values["url"]), sources["url"])
    # The query ranks with its URL: as code for a URL in code, as pinned for a pinned URL.
    above = any("url" in layer.values for layer in (*pins, code))
    middle = [*pins, query] if above else [query, *pins]
    values, sources = _merge([*below, *middle, code])
    values["url"] = bare
    return values, sources, query.problems


def plugins(found: Found, sources: dict[str, str]) -> dict[str, dict[str, object]]:
    """The tables of plugins, each combined key by key."""
    tables: dict[str, dict[str, object]] = {}
    for layer in _ranked(found):
        for dist, table in layer.plugins.items():
            tables.setdefault(dist, {}).update(table)
            sources.update({f"plugins.{dist}.{key}": layer.source for key in table})
    return tables


def pools(found: Found, sources: dict[str, str]) -> dict[str, Mapping[str, int]]:
    """The members of pools, each pool from the last file that has it."""
    members: dict[str, Mapping[str, int]] = {}
    for layer in _ranked(found):
        members.update(layer.pools)
        sources.update({f"pools.{name}": layer.source for name in layer.pools})
    return members


def alerts(found: Found, sources: dict[str, str]) -> dict[str, dict[str, dict[str, object]]]:
    """The tables of alerts. Rules are merged key by key; a channel comes whole from the last file with it."""
    combined: dict[str, dict[str, dict[str, object]]] = {}
    for layer in _ranked(found):
        for kind, tables in layer.alerts.items():
            for name, table in tables.items():
                kept = combined.setdefault(kind, {})
                kept[name] = {**kept.get(name, {}), **table} if kind == "rules" else table
                sources[f"alerts.{kind}.{name}"] = layer.source
                sources.update({f"alerts.{kind}.{name}.{key}": layer.source for key in table})
    return combined


def _ranked(found: Found) -> list[Layer]:
    """The files, the lowest first. A pinned one comes once more at the end."""
    files = found.files()
    return [*files, *(layer for layer in files if layer.pinned)]


def _stack(found: Found, profile: str | None) -> tuple[list[Layer], list[Layer]]:
    """The layers below the URL's query, and those that /etc pins. In each list the lowest comes first."""
    chosen = found.chosen(profile)
    files = found.files()
    profiles = [
        Layer(f"{layer.source} [profiles.{redact_name(chosen)}]", layer.profiles[chosen], pinned=layer.pinned)
        for layer in files
        if chosen and chosen in layer.profiles
    ]
    middle = [found.environment, *profiles] if profile else [*profiles, found.environment]
    return [*files, *middle], [layer for layer in (*files, *profiles) if layer.pinned]


def _merge(stack: Iterable[Layer]) -> tuple[dict[str, Value], dict[str, str]]:
    values: dict[str, Value] = {}
    sources: dict[str, str] = {}
    for layer in stack:
        for key, value in layer.values.items():
            values[key] = value
            sources[key] = layer.origin(key)
    return values, sources
