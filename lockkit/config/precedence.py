"""The precedence of the layers of settings: which of them wins.

The layers, of which a later one wins over an earlier one, are: defaults, ``/etc/lockkit/config.toml``,
``~/.config/lockkit/config.toml``, the project's file, ``LOCKKIT_*``, the URL's query, keywords. A profile
wins over the files; a profile chosen by keyword (``--profile gpu``) also wins over ``LOCKKIT_*``. With
``pinned = true``, the values set in /etc win over everything except keywords.

With each value goes its source: the file, variable or keyword that set it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lockkit.config.layers import NAMED, Found, Layer, split_query
from lockkit.config.settings import Value
from lockkit.errors import ConfigError
from lockkit.values.redaction import redact_name

__all__ = ["named", "settings"]


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


def named(found: Found, sources: dict[str, str]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """The tables with names, by kind and name. Their sources, and those of their keys, go into ``sources``.

    Tables of plugins and of rules are combined key by key. A pool or channel comes whole from the last file
    with it.
    """
    combined: dict[str, dict[str, Mapping[str, Any]]] = {kind: {} for kind in NAMED}
    files = found.files()
    for layer in (*files, *(one for one in files if one.pinned)):  # a pinned file wins over those above it
        for kind, tables in layer.named.items():
            for name, table in tables.items():
                below = combined[kind].get(name, {}) if kind in ("plugins", "alerts.rules") else {}
                combined[kind][name] = {**below, **table}
                sources[f"{kind}.{name}"] = layer.source
                sources.update({f"{kind}.{name}.{key}": layer.source for key in table})
    return combined


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
