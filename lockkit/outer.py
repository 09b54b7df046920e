"""The holds of ``lockkit run`` around this process, as it describes them to its command in LOCKKIT_HELD."""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = ["VARIABLE", "outer_holds"]

VARIABLE = "LOCKKIT_HELD"
"""The environment variable: a JSON array of holds, the innermost last. An array that cannot be read counts as empty."""


def outer_holds(environ: Mapping[str, str]) -> list[dict[str, object]]:
    """The holds in the variable, the innermost last. They may have ended: the variable outlives the hold."""
    try:
        entries = json.loads(environ.get(VARIABLE, "[]"))
    except ValueError:
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
