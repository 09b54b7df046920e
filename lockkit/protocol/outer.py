"""The holds around a program: of the ``lockkit run``, or task, that started it, and of all around that.

A program finds them in its environment, and passes them on to what it starts. They may have ended.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from lockkit.notes.members import in_pool

__all__ = ["VARIABLE", "is_around", "outer_holds", "variables"]

VARIABLE = "LOCKKIT_HELD"
"""The environment variable: a JSON array of holds, the innermost last. An unreadable one counts as empty."""


def outer_holds(environ: Mapping[str, str]) -> list[dict[str, object]]:
    """The holds in the variable, the innermost last."""
    text = environ.get(VARIABLE)
    if not text:
        return []
    import json  # late, as in all of this module: most programs have nothing around them

    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):  # the last for nested lists: anybody can write an environment
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def is_around(claim_id: object) -> bool:
    """Whether a claim is that of a ``lockkit run`` or task around this program: probably a self-deadlock."""
    return claim_id is not None and any(hold.get("claim_id") == claim_id for hold in outer_holds(os.environ))


def variables(
    names: Sequence[str],
    holds: Sequence[Mapping[str, object]],
    fence: int | None = None,
    token: str | None = None,
) -> dict[str, str | None]:
    """The environment variables about a program's locks; None for one that is not to be set.

    Args:
        names: The names of the locks that the program works under.
        holds: All holds around it, those of its locks last.
        fence: The fence of its lock; of no meaning if it has several.
        token: The token of its lock, if the program may have it; of no meaning if it has several.
    """
    import json

    only = names[0] if len(names) == 1 else None
    members = [found[1] for name in names if (found := in_pool(name)) is not None]
    return {
        "LOCKKIT_LEASE_NAME": only,
        "LOCKKIT_LEASE_TOKEN": None if only is None else token,
        "LOCKKIT_LEASE_FENCE": None if only is None or fence is None else str(fence),
        "LOCKKIT_LEASE_NAMES": "\n".join(names),
        "LOCKKIT_POOL_MEMBERS": "\n".join(map(str, members)) if members else None,
        VARIABLE: json.dumps(holds),
    }
