"""Choose cards for a request: the usable ones in order, and why the others will not do. Pure: no I/O.

Rules kept here:

- A held card will do once it is free, so the request queues for it, whatever memory its holder uses.
- A card that computes, or has too much memory in use, without a holder is busy (unmanaged), and skipped.
- What is not known counts as the worst case.
- A request for several gets whole cards, because CUDA shows a process no card beside a slice.
- The cards that the program held last come first, then those with most free memory. Held cards come last.
- A request that no wait can meet says so at once, with the reason for each card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING

from lockkit.facts import ClaimInfo
from lockkit.gpu.devices import Device, Snapshot
from lockkit.gpu.states import STATES, Card, cards
from lockkit.gpu.visible import cuda_shows_alone
from lockkit.gpu.words import how_many, long_name, short_name
from lockkit.lib.namedtuples import NamedTuple
from lockkit.values.choosers import Choice
from lockkit.values.sizes import show

if TYPE_CHECKING:
    from lockkit.gpu.judging import Receipt

__all__ = [
    "CardFacts",
    "CardRequest",
    "choose",
    "holders_of_slice",
    "left_over",
    "may_pass",
    "never_fits",
    "why_not_now",
]


class CardRequest(NamedTuple):
    """A request for cards.

    Attributes:
        count: The number of cards.
        min_free: The bytes that must be free on each; 0 for none in particular.
        memory: The bytes of each that the request takes; None for whole cards.
        model: The model, with ``*`` for any characters, upper or lower case; None for any.
        ids: The UUIDs of the cards that will do; None for any.
        visible: The UUIDs of the cards that the program may see; None for all.
        allow_busy: Whether cards that are used without a lock will do.
        accept_dirty: Whether cards will do of which the last holder left memory in use.
        settle: Seconds after the end of a hold in which memory may still drain.
        last: The UUIDs of the cards that the program held last.
        preflight: The Python whose torch or cupy checks each card after its grant; None for no check.
        hidden: Why cards that the program may not see will not do.
        capacities: The bytes of each card, by UUID, that its record lets claims share; none without a record.
    """

    count: int = 1  # type: ignore[assignment]  # shadows the method of tuples, which nobody needs here
    min_free: int = 0
    memory: int | None = None
    model: str | None = None
    ids: tuple[str, ...] | None = None
    visible: tuple[str, ...] | None = None
    allow_busy: bool = False
    settle: float = 0.0
    last: tuple[str, ...] = ()
    accept_dirty: bool = False
    preflight: str | None = None
    hidden: str = "CUDA_VISIBLE_DEVICES hides it"
    capacities: Mapping[str, int] = MappingProxyType({})


class CardFacts(NamedTuple):
    """The facts about a card that the store knows.

    Attributes:
        holders: The claims that hold it, or a part of it.
        released: When the last hold ended, in seconds since the epoch; None if that is not known.
        quarantine: The mark that keeps it from everybody, in words; empty if it is not quarantined.
        receipt: How its last holder left it; None if that is not known, or does not matter.
        marked: The UUID that has the mark: of the card, or of the card that it is a slice of; else empty.
    """

    holders: tuple[ClaimInfo, ...] = ()
    released: float | None = None
    quarantine: str = ""
    receipt: Receipt | None = None
    marked: str = ""


_NOBODY = CardFacts()
_NOT_NAMED = "it is not among the cards that were asked for"


def choose(
    request: CardRequest, snapshot: Snapshot, held: dict[str, CardFacts], mine: Sequence[str] = ()
) -> Choice:
    """Choose the cards that will do now, the best first, and say why each other one will not.

    Args:
        request: The request.
        snapshot: All cards and slices, looked at once.
        held: The facts of the store, by UUID; a card without any is held by nobody.
        mine: The cards that the request has got already; they are never refused, and never named.
    """
    found = cards(snapshot)
    known = [card for card in found if card.device.uuid]
    reasons = {card.device.uuid: never_fits(request, card.device) for card in known}
    fit = [card for card in known if reasons[card.device.uuid] is None]
    never = None
    if len(fit) < request.count:
        never = _never(request, found, reasons, len(fit))
    refused = {uuid: why for uuid, why in reasons.items() if why is not None and uuid not in mine}
    good: list[Card] = []
    for card in fit:
        uuid = card.device.uuid
        if uuid in mine:
            continue
        why = why_not_now(request, card, held.get(uuid, _NOBODY), snapshot.taken)
        if why is None:
            good.append(card)
        else:
            refused[uuid] = why

    def rank(card: Card) -> tuple[bool, bool, int, int, str]:
        device = card.device
        return (
            bool(held.get(device.uuid, _NOBODY).holders),
            device.uuid not in request.last,
            -(device.free or 0),
            device.index,
            device.uuid,
        )

    return Choice(tuple(card.device.uuid for card in sorted(good, key=rank)), refused, never)


def never_fits(request: CardRequest, device: Device) -> str | None:
    """Why a card will never do for a request; None if it may do one day."""
    if device.sliced:
        return "it is divided into slices, and programs can use only those"
    if request.visible is not None and device.uuid not in request.visible:
        return request.hidden
    if request.ids is not None and device.uuid not in request.ids:
        return _NOT_NAMED
    if request.model is not None and not _is_model(device.name, request.model):
        return f"it is a {device.name}" if device.name else "its model is not known"
    if request.count > 1 and cuda_shows_alone(device):
        return "it is a slice, and CUDA shows a process no card beside a slice"
    need = max(request.min_free, request.memory or 0)
    if not device.usable:
        return "; ".join(device.faults) or "its memory cannot be told"
    if device.usable < need:
        return f"it has only {show(device.usable)} for programs"
    capacity = request.capacities.get(device.uuid)
    if request.memory is not None and capacity is not None and capacity < request.memory:
        return f"its record has only {show(capacity)} for claims"
    return None


def may_pass(request: CardRequest, devices: Sequence[Device]) -> bool:
    """Whether only cards that do not answer now are missing for a request that cannot be met."""
    fit = sum(bool(one.uuid) and never_fits(request, one) is None for one in devices)
    silent = sum(one.silent and (request.ids is None or one.uuid in request.ids) for one in devices)
    return fit < request.count <= fit + silent


def why_not_now(request: CardRequest, card: Card, held: CardFacts, at: float) -> str | None:
    """Why a card will not do now; None if it will, perhaps once its holders have released it.

    Args:
        request: The request.
        card: The card, with the state that it shows.
        held: The facts of the store.
        at: When it was looked at, in seconds since the epoch.
    """
    device = card.device
    if held.quarantine:
        return held.quarantine
    if card.state == "faulty":
        return "; ".join(card.reasons)
    if held.holders:
        return None
    if request.allow_busy:
        return _too_full(request, device)
    if card.state in ("busy", "unknown"):
        if not device.processes and device.used is not None and _drains(request, held, at):
            return None
        left = held.receipt
        if left_over(card) and left is not None and left.outcome != "clean":
            if request.accept_dirty:
                return _too_full(request, device)
            return f"{STATES['dirty']}: {'; '.join((str(left), *card.reasons))}"
        return f"{STATES[card.state]}: {'; '.join(card.reasons)}"
    return _too_full(request, device)


def holders_of_slice(own: tuple[ClaimInfo, ...], of_card: Sequence[ClaimInfo]) -> tuple[ClaimInfo, ...]:
    """The claims that hold a slice: its own, or else claims on its whole card from before it was divided.

    Args:
        own: The claims that hold the slice.
        of_card: The claims that hold its card, or a part of it; each holder of a slice has one, for a part.
    """
    return own or tuple(one for one in of_card if one.weight >= one.capacity)


def left_over(card: Card) -> bool:
    """Whether memory of a card is in use without a process: what its last holder left, if there was one."""
    return card.state == "busy" and card.device.processes == ()


def _too_full(request: CardRequest, device: Device) -> str | None:
    need = max(request.min_free, request.memory or 0)
    if not need:
        return None
    if device.free is None:
        return "its free memory cannot be told"
    return f"only {show(device.free)} of it is free" if device.free < need else None


def _drains(request: CardRequest, held: CardFacts, at: float) -> bool:
    """Whether memory that is still in use may be that of the last holder."""
    return held.released is not None and 0 <= at - held.released < request.settle


def _is_model(name: str, wanted: str) -> bool:
    pattern = wanted.lower()
    return fnmatchcase(name.lower(), pattern if "*" in pattern else f"*{pattern}*")


def _of_all(devices: Sequence[Device], count: int) -> str:
    """The cards to which one reason applies, of so many: ``all 8``, or each by its name."""
    if len(devices) == 1:
        return long_name(devices[0])
    return f"all {count}" if len(devices) == count else ", ".join(map(short_name, devices))


def _never(request: CardRequest, known: Sequence[Card], reasons: dict[str, str | None], fit: int) -> str:
    """The sentence for a request that cannot be met, ever or now. A lost card may have no UUID."""
    passes = may_pass(request, [card.device for card in known])
    wanted = f"{how_many(request.count)} {'cannot be had now' if passes else 'can never be had'}"
    if fit and fit == len(known):
        return f"{wanted}: this host has only {fit}"
    if request.ids is not None and fit and fit == len(set(request.ids)):
        return f"{wanted}: only {how_many(fit)} {'was' if fit == 1 else 'were'} named"
    have = "none" if not fit else f"only {fit}"
    alike: dict[str, list[Device]] = {}
    for card in known:
        why = reasons[card.device.uuid] if card.device.uuid else "; ".join(card.reasons)
        if why is not None:
            alike.setdefault(why, []).append(card.device)
    if len(alike) > 1:
        alike.pop(_NOT_NAMED, None)  # whoever named some cards asks about these
    each = "; ".join(f"{_of_all(devices, len(known))}: {why}" for why, devices in alike.items())
    return f"{wanted}: {have} of the {len(known)} of this host will do{each and f'; {each}'}"
