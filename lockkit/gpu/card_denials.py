"""The words for a request that got no cards: why not each card, and which option or command would help."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from lockkit.config.suggesting import HERE, SameStore
from lockkit.errors import AcquireTimeout
from lockkit.gpu.choosing import CardFacts, CardRequest, never_fits, why_not_now
from lockkit.gpu.devices import Device, Snapshot
from lockkit.gpu.joining import holder_words
from lockkit.gpu.states import Card, cards
from lockkit.gpu.words import alike, how_many, short_name, together
from lockkit.lib.namedtuples import NamedTuple
from lockkit.values import durations

__all__ = ["COMMAND_LINE", "PYTHON", "Seen", "Ways", "denied", "none_at_hand", "what_helps", "why_waiting"]

_NOBODY = CardFacts()
_NONE: Mapping[str, str] = {}
_ALONE: Mapping[str, int] = {}
_SHOWN = 2
"""Commands that are written out at most."""


class Seen(NamedTuple):
    """One look at the cards, with what the store knows of them, for one request.

    Attributes:
        request: The request.
        snapshot: All cards.
        facts: The facts of the store, by UUID.
        failed: Other refusals, by UUID: a check after the grant failed, or the driver does not show the card.
        more: The number of cards for which the request of a holder still waits, by claim id.
        kept: The UUIDs of the cards that the request had got by then.
    """

    request: CardRequest
    snapshot: Snapshot
    facts: Mapping[str, CardFacts]
    failed: Mapping[str, str] = _NONE
    more: Mapping[str, int] = _ALONE
    kept: Collection[str] = ()

    def possible(self) -> list[tuple[Card, CardFacts]]:
        """The cards that might do one day, with the facts about each."""
        return [
            (card, self.facts.get(card.device.uuid, _NOBODY))
            for card in cards(self.snapshot)
            if card.device.uuid and never_fits(self.request, card.device) is None
        ]


class Ways(NamedTuple):
    """The ways in which a user takes a card all the same, as they are written where the request was made.

    Attributes:
        accept_dirty: To take a card of which the last holder left memory in use.
        allow_busy: To take a card that is used without a lock.
        wait: To wait, for a request that did not.
        longer: To wait longer.
        apart: To name several cards.
        store: How a suggested command uses the same store.
        options: Options of the commands of ``lockkit gpu``, with a space before each.
        user: The user who asks; empty if that is not known.
    """

    accept_dirty: str
    allow_busy: str
    wait: str
    longer: str = "wait longer"
    apart: str = "give ids one string for each GPU"
    store: SameStore = HERE
    options: str = ""
    user: str = ""

    def look(self) -> str:
        """The command that shows the cards, to follow a sentence; empty if no command reaches the store."""
        return (
            f", or look{self.store.first} with: lockkit gpu ls{self.store.options}{self.options}"
            if self.store.reachable
            else ""
        )


COMMAND_LINE: Final = Ways(
    "--accept-dirty",
    "--allow-busy",
    "without --no-wait this run would wait in the queue",
    apart="repeat --gpu-id for each GPU",
)
PYTHON: Final = Ways("accept_dirty=True", "allow_busy=True", "give a timeout to wait")


def why_waiting(seen: Seen, *, others: str = "", over: bool = False, apart: bool = False) -> tuple[str, ...]:
    """Why each possible card does not do now: its holder, or another reason. Equal reasons share a sentence.

    Args:
        seen: The look.
        others: The first request in the queue of this host's cards, in words; empty if no other one waits.
        over: Whether the request is over, and has given back what it had got.
        apart: Whether each card has a sentence of its own, for programs.
    """
    found: list[tuple[Device, str | None]] = []
    at = seen.snapshot.taken
    left = dict(seen.failed)
    for card, facts in seen.possible():
        uuid = card.device.uuid
        failed = left.pop(uuid, None)
        why = why_not_now(seen.request, card, facts, at)
        if uuid in seen.kept:
            why = None if over else "got already, and kept"
        elif why is None:
            holders = [holder_words(one, at, more=seen.more.get(one.claim_id, 0)) for one in facts.holders]
            why = f"held by {' and by '.join(holders)}" if holders else failed
        found.append((card.device, why))
    lost = [card for card in cards(seen.snapshot) if card.reasons and not card.device.usable]
    found += [(one.device, "; ".join(one.reasons)) for one in lost if _asked(seen.request, one.device.uuid)]
    at_hand = sum(why is None for _, why in found) + (0 if over else len(seen.kept))
    free = "free"
    if at_hand < seen.request.count:
        free = f"free, but {seen.request.count} are needed"
    elif others:
        free = f"free, and {others} comes first"
    elif over:
        free = "free, but the driver of the GPUs or the store answered too late"
    shown = [
        (short_name(devices[0]) if len(devices) == 1 else together(devices), why)
        for why, devices in ([(why, [one]) for one, why in found] if apart else alike(found).items())
    ]
    shown += [(uuid[:12], why) for uuid, why in left.items()]
    return tuple(f"{name}: {free if why is None else why}" for name, why in shown)


def _asked(request: CardRequest, uuid: str) -> bool:
    """Whether a card with only a UUID, or not even that, might be one that a request asks for."""
    if request.ids is not None:
        return uuid in request.ids
    return request.visible is None or not uuid or uuid in request.visible


def what_helps(seen: Seen, ways: Ways) -> tuple[str, ...]:
    """The options and commands that would make more cards do, a phrase each; none for held or faulty ones."""
    dirty: list[Card] = []
    busy: list[Card] = []
    marked: dict[str, list[Card]] = {}
    at = seen.snapshot.taken
    for card, facts in seen.possible():
        if card.device.uuid in seen.kept:
            continue
        if facts.quarantine:
            marked.setdefault(facts.marked or card.device.uuid, []).append(card)
        elif why_not_now(seen.request, card, facts, at) is None:
            continue
        elif why_not_now(seen.request._replace(accept_dirty=True), card, facts, at) is None:
            dirty.append(card)
        elif why_not_now(seen.request._replace(allow_busy=True), card, facts, at) is None:
            busy.append(card)
    told = [f"{ways.accept_dirty} takes {_listed(dirty)} as {_are(dirty)}"] if dirty else []
    if busy:
        told.append(f"{ways.allow_busy} takes {_listed(busy)} although {_are(busy)} in use")
        told += _own_jobs(busy, ways)
    if marked and ways.store.reachable:
        told.append(_given_back(marked, ways))
    return tuple(told)


def none_at_hand(seen: Seen) -> bool:
    """Whether no release would help: each possible card is in a state that a person must change or accept."""
    at = seen.snapshot.taken
    return all(
        card.device.uuid not in seen.kept and why_not_now(seen.request, card, facts, at) is not None
        for card, facts in seen.possible()
    )


def denied(
    error: AcquireTimeout,
    seen: Seen,
    ways: Ways,
    pool: str,
    *,
    waited: bool,
    others: str = "",
    after: float | None = None,
) -> AcquireTimeout:
    """The error of a request that got too few cards, in terms of cards; what it had got is given back.

    Args:
        error: The error in terms of the pool.
        seen: The last look.
        ways: How options and commands are written.
        pool: The name of the pool.
        waited: Whether the request has waited.
        others: The request that is the first in the queue, as for :func:`why_waiting`.
        after: The seconds that it has waited; None if that is not to be said.
    """
    wanted = how_many(seen.request.count)
    long = "" if after is None else f" after {durations.show(after)}"
    what = f"timed out{long} waiting for {wanted}" if waited else f"{wanted} cannot be had now"
    text = "; ".join([what, *why_waiting(seen, others=others, over=True)])
    hint = [*what_helps(seen, ways), f"{ways.longer if waited else ways.wait}{ways.look()}"]
    return AcquireTimeout(text, name=pool, holder=error.holder, hint="; ".join(hint))


def _own_jobs(busy: Sequence[Card], ways: Ways) -> list[str]:
    """The commands that put the user's own jobs under a claim, as one phrase; none if a job is in doubt."""
    lines: dict[str, None] = {}
    for card in busy:
        (process, *others) = card.device.processes or (None,)
        if process is not None and not others and process.pid and process.user and process.user == ways.user:
            lines[f"lockkit gpu adopt {process.pid}{ways.store.options}{ways.options}"] = None
    if not lines or not ways.store.reachable:
        return []
    return [f"to put your own job there under a lock{ways.store.first}: {' and '.join([*lines][:_SHOWN])}"]


def _given_back(marked: Mapping[str, Sequence[Card]], ways: Ways) -> str:
    """The commands that give quarantined cards back, by the UUID that has the mark."""
    lines = [f"lockkit gpu clear {uuid}{ways.store.options}{ways.options}" for uuid in marked]
    many = len(lines) - _SHOWN
    more = f" and the same for {many} more" if many > 0 else ""
    found = [card for each in marked.values() for card in each]
    return f"to give {_listed(found)} back{ways.store.first}: {' and '.join(lines[:_SHOWN])}{more}"


def _listed(found: Sequence[Card]) -> str:
    """Cards in a sentence: ``GPU 0, GPU 1 and GPU 2``."""
    *most, last = [short_name(card.device) for card in found]
    return f"{', '.join(most)} and {last}" if most else last


def _are(found: Sequence[Card]) -> str:
    return "it is" if len(found) == 1 else "they are"
