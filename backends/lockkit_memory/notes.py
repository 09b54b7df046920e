"""Notes and records: small JSON objects, merged by RFC 7396 (JSON Merge Patch)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lockkit.errors import ConfigError

__all__ = ["merged", "within"]


def within(value: Mapping[str, object] | None, limit: int, what: str) -> None:
    """Check that a value is JSON and at most ``limit`` bytes of it.

    Raises:
        ConfigError: It is not.
    """
    if not value:
        return
    try:
        size = len(json.dumps(dict(value), separators=(",", ":"), allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a {what} must be JSON: {error}") from None
    if size > limit:
        raise ConfigError(
            f"a {what} may be {limit} bytes of JSON, not {size}", hint="store a reference instead"
        )


def merged(target: Mapping[str, object], patch: Mapping[str, object]) -> dict[str, object]:
    """Apply a merge patch: null removes, objects merge, everything else replaces (RFC 7396, section 2)."""
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            below = result.get(key)
            result[key] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result
