"""The cards that this user had last on each host, for the next program: a file in the state folder.

The file only orders good cards. So a missing, damaged or old file does no harm, and its errors are ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lockkit.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from lockkit.config.config import Config

__all__ = ["FILE", "last_cards", "remember"]

FILE = "last-gpus.json"
"""The name of the file in the state folder."""
_LONGEST = 64 * 1024
"""Bytes of the file. A longer one is not read."""
_POOLS = 32
"""Pools that are remembered: of those that were used least recently the file says nothing."""


def last_cards(config: Config, pool: str) -> tuple[str, ...]:
    """The UUIDs of the cards that this user had last in a pool, the preferred one first; none if unknown."""
    with suppress(OSError, BackendError, ConfigError):
        return _read(config.state_place(create=False).path / FILE).get(pool, ())
    return ()


def remember(config: Config, pool: str, uuids: Sequence[str]) -> None:
    """Keep the cards that this user has in a pool now, in a private file. One of two writers wins."""
    with suppress(OSError, BackendError, ConfigError):
        place = config.state_place().path / FILE
        before = _read(place)
        if [*before.items()][-1:] == [(pool, tuple(uuids))]:  # as a rule one gets the card of last time
            return
        before.pop(pool, None)
        known = dict([*before.items(), (pool, tuple(uuids))][-_POOLS:])
        fresh = place.with_name(f"{FILE}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(handle, "w", encoding="utf-8") as file:  # noqa: PTH123 (a descriptor)
                json.dump(known, file)
            fresh.replace(place)
        finally:
            fresh.unlink(missing_ok=True)


def _read(place: Path) -> dict[str, tuple[str, ...]]:
    try:
        if place.stat().st_size > _LONGEST:
            return {}
        value = json.loads(place.read_bytes())
    except (OSError, ValueError, RecursionError):  # the last for lists in lists in lists
        return {}
    return (
        {
            pool: tuple(one for one in uuids if isinstance(one, str))
            for pool, uuids in value.items()
            if isinstance(uuids, list)
        }
        if isinstance(value, dict)
        else {}
    )
