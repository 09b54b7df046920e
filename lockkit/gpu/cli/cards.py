"""``lockkit run --gpu``: a command's cards, the words of its wait, and the variables that show them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from lockkit.cli import exits, nesting, taking
from lockkit.cli.nesting import Outer
from lockkit.cli.parameters import finite
from lockkit.cli.suggesting import as_called
from lockkit.cli.waiting import Announcer, Told, ordinal
from lockkit.config.suggesting import SameStore
from lockkit.errors import AcquireTimeout, ConfigError, DevicesUnavailable, LockkitError
from lockkit.gpu.card_denials import COMMAND_LINE, Seen, Ways, denied, none_at_hand, what_helps, why_waiting
from lockkit.gpu.choosing import CardRequest
from lockkit.gpu.host_pools import root_of_pool
from lockkit.gpu.jobs import job_ttl, strangers, usable_inside
from lockkit.gpu.joining import request_words
from lockkit.gpu.known import facts_of, known, queue
from lockkit.gpu.pools import GpuLeases, card_pool
from lockkit.gpu.requests import HostCards
from lockkit.gpu.visible import asked_words, cuda_knows, cuda_variables
from lockkit.gpu.waiting_row import waiting_row
from lockkit.gpu.words import how_many, together
from lockkit.lib.clock import SYSTEM
from lockkit.lib.namedtuples import NamedTuple
from lockkit.notes.members import in_pool, pool_name
from lockkit.shared.options import DEFAULT
from lockkit.values.identity import process_of
from lockkit.values.sizes import MIB

if TYPE_CHECKING:
    from lockkit.cli.base import Session
    from lockkit.cli.guarding import Run
    from lockkit.cli.run_request import CardOptions, Request
    from lockkit.cli.signals import Signals
    from lockkit.cli.taking import Taken
    from lockkit.facts import ClaimInfo, Waiting
    from lockkit.gpu.devices import Device, Snapshot
    from lockkit.gpu.judging import Receipt
    from lockkit.protocol.call import OnWait
    from lockkit.shared.options import Options
    from lockkit.sync.client import Client

__all__ = ["CardAnnouncer", "Cards", "ReusedCards", "guarded"]

_FRESH = 5.0
"""Seconds for which a live line shows the cards as they were seen last."""


def guarded(run: Run, client: Client, asked: CardOptions) -> int:
    """Run the command of ``lockkit run --gpu`` on its cards. Returns the exit code of the command.

    Raises:
        CommandFailed: The cards are not to be had, or were lost.
        LockkitError: As for :meth:`Cards.acquire`.
    """
    request, session = run.request, run.session
    cards = Cards(client, session, asked)
    run.call(cards.pool)
    if not cards.outer:
        for told in (cards.simulation, asked_words(os.environ)):
            if told is not None and not request.quiet:
                run.tell(told)
        cards.keeps_others_apart(None if request.quiet else run.tell)
    announcer = CardAnnouncer(
        client,
        quiet=request.quiet,
        as_json=session.json,
        signals=run.signals,
        cards=cards,
        limit=finite(request.timeout),
    )
    options = taking.options_of(client, request, run.signals.wake, job_ttl(client.capabilities))
    taken = run.waiting(announcer, lambda: cards.acquire(request, options, announcer))
    run.call(cards.pool)  # the store may keep the cards under a former name of this host
    if isinstance(taken, ReusedCards):
        exported = {**nesting.passed_on(taken.holds, os.environ), **cards.exports(taken)}
        return run.reusing(client, taken.holds, exported)
    assert isinstance(taken, GpuLeases)
    named, look = partial(cards.named, taken), taken.held_cards.family.look
    return run.held(client, taken, shows=cards.exports, named=named, sees=look)


class ReusedCards(NamedTuple):
    """The cards of the ``run`` around this one that its command works under."""

    holds: tuple[Outer, ...]
    devices: tuple[Device, ...]


class Why(NamedTuple):
    """Why cards do not do now.

    Attributes:
        seen: The look at the cards; None if nothing can be said about them.
        others: The first of the other requests in the queue, in words; empty if there is none.
        holder: The first holder of a card.
        sentences: The reasons, for people: cards of which the same is said share one.
        each: The reason of each card, for programs.
    """

    seen: Seen | None = None
    others: str = ""
    holder: ClaimInfo | None = None
    sentences: tuple[str, ...] = ()
    each: tuple[str, ...] = ()


class Cards:
    """The cards of this host, for one ``run``."""

    def __init__(self, client: Client, session: Session, asked: CardOptions) -> None:
        self._client = client
        self._session = session
        self._asked = asked
        self._cards = HostCards(client, simulate=asked.simulate, host=None, ways=COMMAND_LINE)
        self._request = CardRequest(asked.count)
        self._failed: Callable[[], Mapping[str, str]] = dict
        self.count = asked.count
        """The number of cards."""
        self.wanted = how_many(asked.count)
        """The number of cards, in words."""

    @property
    def pool(self) -> str:
        """The pool of this host's cards; before :meth:`acquire` by the host's present name."""
        return self._cards.pool

    @property
    def gate(self) -> str:
        """The name of the gate through which requests pass."""
        return pool_name(self.pool)

    @property
    def simulation(self) -> str | None:
        """A sentence about simulated cards; None for real ones.

        Raises:
            ConfigError: The simulation is a setting, and this host has real cards.
        """
        return self._cards.simulation

    def keeps_others_apart(self, tell: Callable[[str], None] | None) -> None:
        """Warn of a store that keeps only this user's jobs apart, unless ``--private`` was given.

        Raises:
            ConfigError: Another person computes on a card, and is not kept apart from this user.
            DevicesUnavailable: Nothing can be said about any card.
        """
        if self._asked.private or self._client.capabilities.scope != "user":
            return
        me = self._client.owner.user or "this user"
        others = strangers(self._cards.look(), me, _uid_of)
        if others:
            raise ConfigError(
                f"this store keeps only {me}'s jobs apart, and somebody else "
                f"computes here: {'; '.join(others)}",
                name=self._cards.pool,
                hint="use a store that all users share (lockkit docs all-users), or --private "
                "if these GPUs are not shared",
            )
        if tell is not None:
            tell(
                "your jobs and other users' jobs do not see each other on these GPUs; for all users: "
                "lockkit docs all-users"
            )

    def acquire(self, request: Request, options: Options, on_wait: OnWait) -> Taken | ReusedCards:
        """Acquire the cards, or with ``--nested reuse`` use those that a ``run`` around this one holds.

        Raises:
            CommandFailed: Too few cards are free (``--no-wait``), or a ``run`` around this one holds cards.
            LockkitError: As :meth:`lockkit.gpu.GpuPool.acquire`.
        """
        asked = self._asked
        outer = self.outer
        if outer:
            taking.refuse(request, self._cards.pool)
        self._request, snapshot = self._cards.asked(
            asked.count,
            min_free=asked.min_free,
            memory=asked.memory,
            model=asked.model,
            ids=asked.ids or None,
            allow_busy=asked.allow_busy,
            settle=asked.settle,
            affinity=asked.affinity,
            accept_dirty=asked.accept_dirty,
            preflight=asked.preflight_python or asked.preflight,
        )
        if outer:
            return self._reused(outer, snapshot)
        checked = self._cards.possible(self._request, snapshot)
        self._failed = checked.chooser.failed
        pool = card_pool(self._client, self._cards, checked, options)
        pool.owner = pool.terms.owner._replace(program=Path(request.command[0]).name[:64])
        waits = not request.no_wait
        began = SYSTEM.now()
        try:
            return pool.acquire(
                asked.count,
                each=checked.each,
                among=checked.among,
                chooser=checked.chooser,
                timeout=DEFAULT if waits else 0,
                on_wait=on_wait if waits else None,
            )
        except AcquireTimeout as error:
            raise self._in_words(error, SYSTEM.now() - began, no_wait=request.no_wait) from error

    def exports(self, taken: Taken | ReusedCards) -> dict[str, str | None]:
        """The variables that show the command its cards; None for one that is not to be set.

        Raises:
            ConfigError: A card is to be named as CUDA cannot name it.
            DevicesUnavailable: The driver no longer shows one of the cards.
        """
        assert isinstance(taken, (GpuLeases, ReusedCards))
        devices = taken.devices
        if len(devices) < self._asked.count:
            raise DevicesUnavailable(
                "the driver no longer shows one of the GPUs that were granted", hint="see: lockkit gpu ls"
            )
        memory = self._request.memory
        if isinstance(taken, ReusedCards) or not self._client.config.gpu_watch:
            self._cards.close()  # so that the command may reset a card
        visible = self._asked.visible
        if visible == "index" and any(device.parent for device in devices):
            raise ConfigError(
                "a slice of a GPU has no index", name=self._cards.pool, hint="leave out --visible index"
            )
        return {
            **(cuda_variables(devices, by=visible) if visible or cuda_knows(devices) else {}),
            "LOCKKIT_GPU_UUIDS": ",".join(device.uuid for device in devices),
            "LOCKKIT_GPU_INDEXES": ",".join(str(device.index) for device in devices),
            "LOCKKIT_GPU_RECEIPT": _as_json(taken.receipts) if isinstance(taken, GpuLeases) else None,
            "LOCKKIT_GPU_MEM": None if memory is None else str(-(-memory // MIB)),
        }

    def named(self, taken: GpuLeases, lock: str) -> str:
        """The card of a lock, as people call it; all held cards if the lock is for none of these."""
        pool = in_pool(lock)
        devices = [one for one in taken.devices if pool is not None and one.uuid == pool[1]]
        return together(devices or taken.devices) or repr(lock)

    def why(self) -> Why:
        """Why the cards that might do one day do not do now; nothing if nothing can be said."""
        try:
            snapshot = self._cards.look()
            of_store = known(
                self._client, self._cards.home, snapshot.devices, queue(self._client, self._cards.host)
            )
        except LockkitError:
            return Why()  # the wait goes on, and acquire will report the error
        others = (one for card in of_store.values() for one in card.holders if not self.mine(one))
        seen = Seen(
            self._request,
            snapshot,
            {uuid: facts_of(card) for uuid, card in of_store.items()},
            self._failed(),
            {claim: more for card in of_store.values() for claim, more in card.more.items()},
            [uuid for uuid, card in of_store.items() if any(map(self.mine, card.holders))],
        )
        waiting = self._first_of_others()
        sentences, each = (why_waiting(seen, others=waiting, apart=apart) for apart in (False, True))
        return Why(seen, waiting, next(others, None), sentences, each)

    @property
    def ways(self) -> Ways:
        """The ways in which the user of the command line takes a card all the same."""
        options, first = as_called(self._session)
        simulated = "" if self._asked.simulate is None else f" --gpu-sim {self._asked.simulate}"
        return COMMAND_LINE._replace(
            store=SameStore(options, first), options=simulated, user=self._client.owner.user or ""
        )

    def _first_of_others(self) -> str:
        """The first other request in the queue of this host's cards, in words; empty if none or unknown."""
        try:
            gate = self._client.inspect(self.gate)
        except LockkitError:
            return ""
        others = (one for one in (*gate.holders, *gate.waiters) if not self.mine(one))
        return next(map(request_words, others), "")

    def mine(self, claim: ClaimInfo) -> bool:
        """Whether a claim is one of this process."""
        return process_of(claim.owner) == process_of(self._client.owner)

    def _in_words(self, error: AcquireTimeout, waited: float, *, no_wait: bool) -> LockkitError:
        ways, why = self.ways, self.why()
        if why.seen is not None:
            error = denied(
                error, why.seen, ways, self._cards.pool, waited=not no_wait, others=why.others, after=waited
            )
        if not no_wait:
            return error
        return exits.CommandFailed(
            error.message,
            code=exits.BUSY,
            kind="busy",
            name=self._cards.pool,
            holder=error.holder,
            hint=error.hint,
        )

    @cached_property
    def outer(self) -> Mapping[str, ClaimInfo]:
        """The claims of every ``run`` around this one on cards of this host, by UUID."""
        found: dict[str, ClaimInfo] = {}
        for claim in nesting.held_around(self._client):
            pool = in_pool(claim.name)
            # Not the whole name: this host may have been called something else.
            if pool is not None and pool[1] is not None and root_of_pool(pool[0]) == root_of_pool(self.pool):
                found[pool[1]] = claim
        return found

    def _reused(self, outer: Mapping[str, ClaimInfo], snapshot: Snapshot) -> ReusedCards:
        good, refused = usable_inside(self._request, snapshot, outer)
        if len(good) < self._asked.count:
            have = f"only {how_many(len(good))}" if good else "no GPU"
            why = f" ({'; '.join(refused)})" if refused else ""
            raise exits.CommandFailed(
                f"the lockkit run or task around this one holds {have} that will do, which is not enough "
                f"for {self.wanted}{why}",
                code=exits.BUSY,
                kind="nested",
                name=self._cards.pool,
                hint="take all that is needed in the outer one",
            )
        chosen = good[: self._asked.count]
        return ReusedCards(tuple(nesting.outer_of(outer[device.uuid]) for device in chosen), chosen)


class CardAnnouncer(Announcer):
    """Writer of waiting messages that name the cards, their holders, and why else they will not do."""

    _soon = False  # a driver may be slow, and the claim must be kept meanwhile
    _first = 0.5  # requests pass the gate one by one, and an early question finds free cards

    def __init__(
        self,
        client: Client,
        *,
        quiet: bool,
        as_json: bool,
        signals: Signals,
        cards: Cards,
        limit: float | None = None,
    ) -> None:
        super().__init__(client, quiet=quiet, as_json=as_json, signals=signals, limit=limit)
        self._cards = cards
        self._seen: tuple[float, Why] | None = None

    def _told(self, waiting: Waiting, *, due: bool) -> Told:
        now = SYSTEM.now()
        if due or self._seen is None or now - self._seen[0] > _FRESH:
            self._seen = now, self._cards.why()
        why = self._seen[1]
        place = self._place_of_request()
        told = [*why.sentences] or ["the GPUs cannot be seen now"]
        if why.seen is not None and none_at_hand(why.seen):
            told += what_helps(why.seen, self._cards.ways)
        line = f"waiting for {self._cards.wanted}: you are {ordinal(place)}; {'; '.join(told)}"
        live = waiting_row(why.seen, self._cards.count, ordinal(place), waiting.waited)
        return Told(line, place, why.holder or waiting.holder, why.each, live)

    def _place_of_request(self) -> int:
        """The place among all requests; the one at the gate is the first."""
        info = self._queue(self._cards.gate)
        if info is None or any(map(self._cards.mine, info.holders)):
            return 1
        ahead = len(info.holders)
        return ahead + next((at for at, one in enumerate(info.waiters, start=1) if self._cards.mine(one)), 1)


def _as_json(receipts: Mapping[str, Receipt]) -> str:
    """The receipts of the last holders, by UUID, as ``lockkit gpu ls --json`` has each."""
    import msgspec

    from lockkit.views.making import made_of
    from lockkit.views.parts import GpuReceipt

    return msgspec.json.encode({uuid: made_of(GpuReceipt, one) for uuid, one in receipts.items()}).decode()


def _uid_of(user: str) -> int | None:
    import pwd

    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None
