"""Notes and records: small JSON objects, merged by RFC 7396 (JSON Merge Patch)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lockkit.errors import ConfigError
from lockkit.store.spi import NOTE_LIMIT
from lockkit.store.untrusted import object_in

__all__ = ["merged", "note_of", "note_text", "patched", "too_long"]


def note_text(value: Mapping[str, object], limit: int, what: str = "note") -> str:
    """A value as JSON of at most ``limit`` bytes.

    Raises:
        ConfigError: The value cannot be written as JSON, or the JSON is longer.
    """
    try:
        text = json.dumps(dict(value), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a {what} must be a JSON object: {error}") from None
    if size > limit:
        raise too_long(what, size, limit)
    return text


def note_of(stored: object) -> Mapping[str, object]:
    """A note from its stored form, as text or decoded; empty if there is none, or if it cannot be read."""
    return stored if isinstance(stored, Mapping) else object_in(stored) or {}


def too_long(what: str, size: int | None, limit: int) -> ConfigError:
    """The error for a note or record that is too long; ``size`` is its length in bytes, None if unknown."""
    much = f"; this one has {size}" if size is not None else ""
    return ConfigError(
        f"a {what} may have at most {limit} bytes of JSON{much}",
        hint="store the data elsewhere, and a reference to it here",
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


def patched(note: Mapping[str, object], patch: Mapping[str, object]) -> dict[str, object]:
    """A note with a patch applied.

    Raises:
        ConfigError: The result is over :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
    """
    after = merged(note, patch)
    note_text(after, NOTE_LIMIT)
    return after
