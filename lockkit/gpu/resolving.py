"""Cards as people name them: by UUID, at least 8 first characters of one, or index. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lockkit.errors import ConfigError
from lockkit.gpu.devices import Device

__all__ = ["resolve", "resolve_each"]

_SHORTEST = 8
"""The characters of a UUID that name its card, as in ``GPU-54a0``."""
_SHOWN = 12
"""The characters of a UUID in a list of cards, as in ``GPU-54a033e8``."""


def resolve(
    word: str,
    devices: Sequence[Device],
    others: Collection[str] = (),
    *,
    pool: str | None = None,
    apart: str = "",
) -> str:
    """The UUID of the card that a person means.

    Args:
        word: A UUID, at least 8 characters with which only one begins, the index of a card, or an alias.
        devices: The cards of this host.
        others: UUIDs that may be meant, too, though no such card is seen.
        pool: The pool of the cards, for errors.
        apart: How several cards are named where the word was written, for errors.

    Raises:
        ConfigError: No card is meant, or several; the message lists those that there are.
    """
    uuids = list(dict.fromkeys([*(one.uuid for one in devices if one.uuid), *others]))
    if word in uuids:
        return word
    alias = next((one.uuid for one in devices if one.uuid and word in one.aliases), None)
    if alias is not None:
        return alias
    if word.isascii() and word.isdigit():
        meant = [one for one in devices if one.index == int(word) and one.parent is None]
        found = [one.uuid for one in meant]
        if found and not found[0]:
            why = "; ".join(meant[0].faults)
            raise ConfigError(
                f"GPU {word} does not give its UUID, so it cannot be named{why and f': {why}'}",
                name=pool,
                hint="see: lockkit gpu ls",
            )
    else:
        found = [uuid for uuid in uuids if len(word) >= _SHORTEST and uuid.lower().startswith(word.lower())]
    if len(found) == 1:
        return found[0]
    there = _listed(found or uuids, devices)
    if not found:
        few = word and len(word) < _SHORTEST and any(uuid.lower().startswith(word.lower()) for uuid in uuids)
        hint = f"name at least {_SHORTEST} characters of a UUID; " if few else ""
        hint += f"the GPUs are {there}"
        if "," in word:
            hint = f"name each GPU by itself{apart and f': {apart}'}"
        elif word.isascii() and word.isdigit():
            hint = f"the GPUs are {_indices(devices) or there}"
        raise ConfigError(f"there is no GPU {word!r}", name=pool, hint=hint)
    if word.isdigit():
        raise ConfigError(
            f"several GPUs have the index {word}", name=pool, hint=f"name one by its UUID: {there}"
        )
    raise ConfigError(f"several GPUs begin with {word!r}", name=pool, hint=f"they are {there}")


def resolve_each(
    ids: Sequence[str], devices: Sequence[Device], *, pool: str | None = None, apart: str = ""
) -> tuple[str, ...]:
    """The UUIDs of the cards that a person means, each named by UUID, the beginning of one, or index.

    ``apart`` is how several are named, for errors.

    Raises:
        ConfigError: There is no such card, or a card and a slice of it are both named.
    """
    if isinstance(ids, str) or not all(isinstance(one, str) for one in ids):
        raise ConfigError(
            f"ids must be a list of UUIDs or indices as strings, not {ids!r}",
            name=pool,
            hint='write ids=["0"]',
        )
    parents = {one.uuid: one.parent for one in devices if one.uuid}
    found = [resolve(one, devices, pool=pool, apart=apart) for one in ids]
    both = next((uuid for uuid in found if parents[uuid] in found), None)
    if both is not None:
        raise ConfigError(
            f"{parents[both]} and its slice {both} cannot both be asked for",
            name=pool,
            hint="name the slices that will do, or the card",
        )
    return tuple(found)


def _listed(uuids: Sequence[str], devices: Sequence[Device]) -> str:
    """Cards by index and short UUID: ``GPU 0 (GPU-54a033e8)``; a whole UUID if the short one is ambiguous."""
    by_uuid = {one.uuid: one for one in devices if one.uuid}
    short = [uuid[:_SHOWN] for uuid in uuids]
    told = []
    for uuid, beginning in zip(uuids, short, strict=True):
        name = beginning if short.count(beginning) == 1 else uuid
        device = by_uuid.get(uuid)
        what = (
            None
            if device is None
            else f"slice of GPU {device.index}"
            if device.parent
            else f"GPU {device.index}"
        )
        told.append(name if what is None else f"{what} ({name})")
    return ", ".join(told) or "none"


def _indices(devices: Sequence[Device]) -> str:
    """The indices of the cards: ``0 to 7``, or each where some are missing."""
    there = sorted({one.index for one in devices if one.parent is None})
    if len(there) > 1 and there == [*range(there[0], there[-1] + 1)]:
        return f"{there[0]} to {there[-1]}"
    return ", ".join(map(str, there))
