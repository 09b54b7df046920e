"""A request for cards, checked against the host: what both faces of :func:`lockkit.gpu.pool` share."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import copy_context
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from lockkit.config.layers import ARGUMENT
from lockkit.errors import AcquireTimeout, BackendError, ConfigError, DeadlockDetected, DevicesNotReady
from lockkit.facts import NOTHING
from lockkit.gpu.capacities import capacities, seen, slices_in
from lockkit.gpu.card_check import CardCheck
from lockkit.gpu.card_chooser import CardChooser
from lockkit.gpu.card_denials import PYTHON, Ways, denied
from lockkit.gpu.choosing import CardRequest, choose, may_pass, never_fits
from lockkit.gpu.devices import Device, Snapshot
from lockkit.gpu.fault_check import FaultCheck
from lockkit.gpu.handover import Handover
from lockkit.gpu.held_cards import HeldCards, note_held_cards
from lockkit.gpu.homes import HomeCheck, Homes, settle
from lockkit.gpu.host_pools import host_pool
from lockkit.gpu.hosts import host_name
from lockkit.gpu.preflight import Preflight
from lockkit.gpu.quarantine import quarantined
from lockkit.gpu.remembered import last_cards, remember
from lockkit.gpu.resolving import resolve_each
from lockkit.gpu.snapshots import let_go, look, looking, providers, simulated_cards, simulation
from lockkit.gpu.visible import asked_words, cuda_shows_alone, hidden_hint, visible_uuids, why_hidden
from lockkit.gpu.watching import WatchedCards, faults, watch
from lockkit.gpu.words import how_many, long_name
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable
from lockkit.notes.members import pool_name, whole
from lockkit.plugins.calling import call_within
from lockkit.protocol.outer import outer_holds
from lockkit.shared.options import Default, Options, checked_timeout
from lockkit.values import durations
from lockkit.values.sizes import MIB, parse

if TYPE_CHECKING:
    from lockkit.drivers.threads import Driver
    from lockkit.facts import ClaimInfo
    from lockkit.shared.lease import AnyLease
    from lockkit.sync.client import Client

__all__ = ["CheckedRequest", "HostCards"]

_AGAIN = 0.25
"""Seconds after which a store that is busy is asked again."""
_LEAST = 0.5
"""Seconds that the driver and the store have at least to report the cards, however short the request."""
_SHORTEST = 0.05
_LONGEST_LOOK = 25.0
"""Seconds of one look at most: a chooser has 30 s."""
_SILENT = "try again; if cards take long to wake: nvidia-smi -pm 1, or a longer gpu.patience"
_log = logging.getLogger("lockkit")


class CheckedRequest(NamedTuple):
    """A request that the host can meet, and the pool that it goes to.

    Attributes:
        chooser: The chooser of the request.
        pool: The name of the pool of the cards.
        members: The capacity of each card in MiB, by UUID.
        within: The card of each slice.
        among: The cards that may do.
        each: The MiB of each card; None for whole cards.
        timeout: Seconds that are left to wait; None to wait for ever, 0 not to wait.
    """

    chooser: CardChooser
    pool: str
    members: Mapping[str, int]
    within: Mapping[str, str]
    among: Sequence[str]
    each: int | None
    timeout: float | None = None


class HostCards:
    """The cards of this host, and what was taken of them last.

    Args:
        client: The client whose store keeps users of the cards apart.
        simulate: The number of cards to simulate; None for what the configuration says.
        host: The name of this host in the store; None for what :func:`~lockkit.gpu.hosts.host_name` says.
        ways: How errors write what a user can change about a request.

    Attributes:
        last: The UUIDs of the cards that this object took last.
        faults: Returns the faults of a card since its grant, by UUID, a sentence each. Does not block.
    """

    def __init__(
        self, client: Client, *, simulate: int | None, host: str | None, ways: Ways = PYTHON
    ) -> None:
        self._client = client
        client.plugins.add_shipped()  # the cleanup of cards, also of simulated ones
        self._providers = providers(client.config, client.plugins, simulate=simulate)
        how = looking(client.config)
        self._looking = how._replace(patience=min(how.patience, _LONGEST_LOOK))
        self._named = host_name(client.config, simulate=simulate, host=host)
        self._home = Homes(self._named)
        self.last: tuple[str, ...] = ()
        self.faults: Callable[[str], tuple[str, ...]] = faults
        self._preflights: dict[str, Preflight] = {}
        self._simulate = simulate
        self.ways = ways
        self._silent = ways is not PYTHON  # the command line writes lines of its own
        self._environ = dict(os.environ)  # now: later it may be the one that leases.visible() sets

    @property
    def host(self) -> str:
        """The host under whose name the store has the cards; before the first request, this one's name."""
        return self._home.host

    @property
    def pool(self) -> str:
        """The name of the pool of these cards."""
        return host_pool(self.host)

    @property
    def home(self) -> Homes:
        """The home of the cards, by the last :meth:`settle`."""
        return self._home

    @property
    def without_wait(self) -> float:
        """Seconds for a request without a wait to see the cards: more than a look, whose error says more."""
        return self._looking.patience + _LEAST

    def settle(self, devices: Sequence[Device]) -> None:
        """Find the host under whose name the store has the cards; see :func:`lockkit.gpu.homes.settle`.

        Raises:
            BackendError: The store does not answer.
        """
        self._home = settle(self._client, self._named, devices)

    def check(self, devices: Sequence[Device]) -> HomeCheck:
        """The check of free cards for claims under a former name; see :meth:`settle`."""
        return HomeCheck(self._client, self._home, devices)

    def look(self) -> Snapshot:
        """Look at all cards.

        Raises:
            DevicesUnavailable: No provider knows a card.
        """
        return look(self._providers, self._looking)

    def taken(self, leases: Sequence[AnyLease], members: Sequence[str], devices: Sequence[Device]) -> None:
        """Note which cards were taken, and have them watched until they are released. Does not block."""
        self.last = tuple(members)
        if self._client.config.gpu_watch:
            watch(WatchedCards(self._providers, leases, members, devices, self._client.config))

    def granted(
        self, driver: Driver, leases: Sequence[AnyLease], members: Sequence[str], chooser: CardChooser
    ) -> HeldCards:
        """Note the granted cards, to watch them, and to clean them at their release. Does not block.

        Args:
            driver: The engine that got the leases.
            leases: The leases.
            members: The UUIDs of the cards and slices that are held.
            chooser: The chooser of the request.
        """
        self.taken(leases, members, chooser.devices(members))
        assert chooser.home is not None
        seen = tuple(chooser.seen.values())
        held = HeldCards(driver, chooser.home.host, self._providers, seen, self.faults, self._looking)
        note_held_cards(held, leases, members, seen)
        if chooser.handover is not None:
            chooser.handover.finish(members)
        return held

    def adopted(
        self, driver: Driver, leases: Sequence[AnyLease], before: Sequence[Device], seen: Sequence[Device]
    ) -> None:
        """Note whole cards that are held for a job which already runs there. Does not block.

        Args:
            driver: The engine that got the leases.
            leases: The leases.
            before: The cards, as they are without the job.
            seen: All cards of the host.
        """
        held = HeldCards(driver, self.host, self._providers, seen, self.faults, self._looking)
        note_held_cards(held, leases, [one.uuid for one in before], before)

    def denied(
        self,
        error: AcquireTimeout,
        chooser: CardChooser,
        *,
        waited: bool,
        refused: Mapping[str, str] = NOTHING,  # type: ignore[assignment]  # nothing is in it
    ) -> AcquireTimeout:
        """The error of a request that got too few cards, with why each did not do, and what would help.

        Args:
            error: The error in terms of the pool. Its context says why no card was looked at.
            chooser: The chooser of the request.
            waited: Whether the request has waited.
            refused: Why no card could be looked at, by UUID; nothing if the turn of the request had not come.
        """
        if chooser.looked is None:
            wanted, inner = how_many(chooser.request.count), error.__context__
            whose = f"; it is that of {error.holder.owner}" if error.holder else ""
            before = f"another request comes first{whose}"
            if not waited:
                why = "; ".join(dict.fromkeys(refused.values())) or before
                text = printable(f"{wanted} cannot be had now: {why}")
                return AcquireTimeout(text, name=self.pool, holder=error.holder, hint=error.hint)
            if not isinstance(inner, AcquireTimeout):
                return error
            at_gate = inner.name == pool_name(self.pool)
            text = printable(f"{wanted} cannot be had in time: {before if at_gate else inner.message}")
            return AcquireTimeout(text, name=self.pool, holder=inner.holder, hint=inner.hint)
        number = simulated_cards(self._client.config, self._simulate)
        options = f" --gpu-sim {number}" if number else ""
        store, user = self._client.driver().same_store(), self._client.owner.user
        ways = self.ways._replace(store=store, options=options, user=user or "")
        after = time.monotonic() - chooser.began if waited and chooser.began is not None else None
        return denied(error, chooser.looked, ways, self.pool, waited=waited, after=after)

    def given_up(self, chooser: CardChooser) -> None:
        """Note that a request got no cards. Does not block."""
        if chooser.handover is not None:
            chooser.handover.finish(())

    def remember(self, uuids: Sequence[str]) -> None:
        """Keep the taken cards in a small file for the next program of this user. Raises no error."""
        remember(self._client.config, self.pool, uuids)

    def close(self) -> None:
        """Let go of the drivers within seconds, so that a card can be reset. A later look reopens them."""
        let_go(self._providers)

    def asked(
        self,
        count: int,
        *,
        min_free: int | str | None,
        memory: int | str | None,
        model: str | None,
        ids: Sequence[str] | None,
        allow_busy: bool,
        settle: float,
        affinity: bool,
        accept_dirty: bool = False,
        preflight: bool | str = False,
    ) -> tuple[CardRequest, Snapshot]:
        """A request, possible or not, and one look at the cards; as :meth:`lockkit.gpu.GpuPool.acquire`.

        Raises:
            ConfigError: An argument is wrong, or names no card of this host, or a preflight is not possible.
            DevicesUnavailable: No provider knows a card, or the driver is silent about one that may be meant.
        """
        whole(count, "count", self.pool)
        wanted: object = model
        if wanted is not None and not (isinstance(wanted, str) and wanted.strip()):
            raise ConfigError(
                f"model must be a part of the name of a card, or None, not {model!r}",
                name=self.pool,
                hint="for instance model='H100'",
            )
        flags = {"allow_busy": allow_busy, "affinity": affinity, "accept_dirty": accept_dirty}
        for what, flag in flags.items():
            if not isinstance(flag, bool):
                raise ConfigError(f"{what} must be True or False, not {flag!r}", name=self.pool)
        request = CardRequest(
            count,
            0 if min_free is None else parse(min_free, what="min_free", zero=True, least=MIB),
            None if memory is None else parse(memory, what="memory", least=MIB),
            model,
            allow_busy=allow_busy,
            settle=durations.seconds(settle, what="settle", zero=True),
            accept_dirty=accept_dirty,
            preflight=sys.executable if preflight is True else preflight or None,
        )
        if request.preflight is not None:
            self._checks_with(request.preflight).probe()
        self._log_once()
        snapshot = self.look()
        devices = snapshot.devices
        self.settle(devices)
        named = None if ids is None else self._named_in(ids, devices)
        visible = visible_uuids(self._environ, devices)
        last = (self.last or last_cards(self._client.config, self.pool)) if affinity else ()
        return request._replace(
            last=last, ids=named, visible=visible, hidden=why_hidden(self._environ, devices)
        ), snapshot

    def _named_in(self, ids: Sequence[str], devices: Sequence[Device]) -> tuple[str, ...]:
        """The UUIDs of the cards that are named.

        Raises:
            ConfigError: This host has no such card.
            DevicesNotReady: The driver does not answer about a card, which may be the one.
        """
        try:
            return resolve_each(ids, devices, pool=self.pool, apart=self.ways.apart)
        except ConfigError as error:
            why = [fault for one in devices if one.silent and not one.uuid for fault in one.faults]
            if not why:
                raise
            told = error.message if why[0] in error.message else f"{error.message}; {why[0]}"
            raise DevicesNotReady(told, hint=_SILENT) from None

    @cached_property
    def simulation(self) -> str | None:
        """A sentence for requests on simulated cards; None on real ones. May look at the real cards once.

        Raises:
            ConfigError: As :func:`lockkit.gpu.snapshots.simulation`.
        """
        return simulation(self._client.config, self._client.plugins, self._simulate)

    def _log_once(self) -> None:
        """Log once a simulation that the program did not request, and cards that the environment leaves."""
        simulated, asked = self.simulation, asked_words(self._environ)
        if self._silent:
            return
        self._silent = True
        meant = self._simulate is not None or self._client.config.source("gpu_simulate") == ARGUMENT
        if simulated is not None and not meant:
            _log.warning("%s", printable(simulated))
        if asked is not None:
            _log.info("%s", printable(asked))

    def wait(self, timeout: float | Default | None, options: Options) -> float | None:
        """The seconds that a request waits in all; None for ever.

        Args:
            timeout: As for :meth:`lockkit.gpu.GpuPool.acquire`.
            options: The options of the pool.

        Raises:
            ConfigError: The timeout is not allowed.
        """
        told = (
            options.get("timeout", self._client.config.timeout) if isinstance(timeout, Default) else timeout
        )
        return checked_timeout(told)

    def checked_within(
        self, wait: float | None, count: int, *, began: float | None = None, **asked: Any
    ) -> CheckedRequest:
        """Look at the cards, and check a request as :meth:`asked` and :meth:`possible`, within its time.

        With a timeout, a thread asks the driver and the store. A store that is only busy is asked again.

        Args:
            wait: The seconds that the request waits in all; None for ever, 0 not at all.
            count: The number of cards.
            began: When the time of the request began, by time.monotonic(); None for now.
            asked: The other arguments of :meth:`asked`.

        Raises:
            AcquireTimeout: The time is up.
        """
        if wait is None:
            return self._checked(None, count, **asked)
        now = time.monotonic()
        began = now if began is None else began
        left = max(wait - (now - began), _LEAST) if wait else self.without_wait
        call = partial(copy_context().run, self._checked, began + wait, count, **asked)
        [outcome] = call_within(left, "cards", [("cards", call)], {})
        spent = time.monotonic() - began
        if type(outcome.error) is TimeoutError:
            raise self.late(spent)
        if outcome.error is not None:
            raise outcome.error
        found = outcome.value
        assert isinstance(found, CheckedRequest)
        if wait:
            found.chooser.began, found.chooser.until = began, began + wait
        return found._replace(timeout=max(wait - spent, _SHORTEST) if wait else 0.0)

    def late(self, spent: float) -> AcquireTimeout:
        """The error for a request whose time was up before its cards were seen."""
        return AcquireTimeout(
            f"timed out after {durations.show(spent)},"
            " while the driver of the GPUs and the store were asked about them",
            name=self.pool,
            hint="wait longer, or see: lockkit gpu ls",
        )

    def _checked(self, end: float | None, count: int, **asked: Any) -> CheckedRequest:
        began = time.monotonic()
        while True:
            try:
                return self.possible(*self.asked(count, **asked))
            except BackendError as error:
                now = time.monotonic()
                if not error.busy or (end is not None and began >= end):
                    raise
                if end is not None and now >= end:
                    raise self.late(now - began) from error
            time.sleep(_AGAIN)

    def possible(self, request: CardRequest, snapshot: Snapshot) -> CheckedRequest:
        """Check that a request can be met.

        Raises:
            ConfigError: The request can never be met; the error says why for each card.
            DevicesNotReady: Only cards are in the way about which the driver does not answer now.
            DeadlockDetected: The request would wait for a ``lockkit run`` or task around this program.
            BackendError: The store does not answer.
        """
        devices = snapshot.devices
        home = self.check(devices)
        host, pool = home.host, home.pool
        never = choose(request, snapshot, {}).never
        if never is not None and may_pass(request, devices):
            raise DevicesNotReady(never, hint=_SILENT)
        if never is not None:
            raise ConfigError(never, name=pool, hint=self._way_out(request, snapshot))
        members = capacities(self._client, pool, devices)
        # A card with a damaged record stays in the pool: a request waits until a person repairs the record.
        damaged = {
            one.uuid: seen(one, devices)
            for one in devices
            if one.uuid and one.usable and one.uuid not in members
        }
        members = {**members, **damaged}
        request = request._replace(capacities={uuid: mib * MIB for uuid, mib in members.items()})
        never = choose(request, snapshot, {}).never
        if never is not None:
            raise ConfigError(never, name=pool, hint="ask for less, or see: lockkit resize --help")
        fit = [one for one in devices if one.uuid in members and never_fits(request, one) is None]
        within = slices_in(devices, members)
        each = None if request.memory is None else math.ceil(request.memory / MIB)
        self._refuse_those_around(pool, request.count, each, fit, members, within)
        handover = Handover(self._client, host, whole=each is None)
        check = None
        if request.preflight is not None:
            preflight = self._checks_with(request.preflight)
            check = CardCheck(self._client, host, preflight, devices)
        chooser = CardChooser(
            request,
            fit,
            self.look,
            partial(self._claims, pool),
            marks=partial(self._marks, host, damaged),
            handover=handover,
            preflight=check,
            fault_check=FaultCheck(self._client, host, devices),
            home=home,
        )
        return CheckedRequest(chooser, pool, members, within, [one.uuid for one in fit], each)

    def _way_out(self, request: CardRequest, snapshot: Snapshot) -> str:
        """Advice for a request that can never be met: change what alone is in its way, or ask for less."""
        if request.count > 1:
            one = request._replace(count=1)
            if any(cuda_shows_alone(it) and never_fits(one, it) is None for it in snapshot.devices):
                return "ask for one slice for each process, by a request of its own, or for whole GPUs"
        few = request.ids is not None and len(set(request.ids)) < request.count
        if few and choose(request._replace(ids=None), snapshot, {}).never is None:
            return f"name as many GPUs as are asked for: {self.ways.apart}"
        if choose(request._replace(visible=None), snapshot, {}).never is None:
            return hidden_hint(self._environ)
        if choose(request._replace(model=None), snapshot, {}).never is None:
            models = sorted({one.name for one in snapshot.devices if one.name})
            return f"the models are: {', '.join(models) or 'unknown'}"
        return "ask for less, or see: lockkit gpu ls"

    def _refuse_those_around(
        self,
        pool: str,
        count: int,
        each: int | None,
        fit: Sequence[Device],
        members: Mapping[str, int],
        within: Mapping[str, str],
    ) -> None:
        """Refuse a request that only cards held by a ``lockkit run`` or task around this program can meet.

        Raises:
            DeadlockDetected: The wait would last as long as this program.
        """
        around = {one.get("name"): one.get("claim_id") for one in outer_holds(os.environ)}
        kept: dict[str, ClaimInfo] = {}
        for device in fit:
            need = members[device.uuid] if each is None else each
            for uuid in filter(None, (device.uuid, within.get(device.uuid))):
                claim_id = around.get(pool_name(pool, uuid))
                for holder in self._claims(pool, uuid) if claim_id else ():
                    if holder.claim_id == claim_id and members[uuid] - holder.weight < need:
                        kept[long_name(device)] = holder
        if kept and len(fit) - len(kept) < count:
            raise DeadlockDetected(
                f"the lockkit run or task around this program holds {', '.join(kept)},"
                " and ends no sooner than the program",
                name=pool,
                holder=next(iter(kept.values())),
                hint="use the GPUs that it holds, which the program sees, without asking for them again; "
                "or start the program without GPUs",
            )

    def _checks_with(self, python: str) -> Preflight:
        """The preflight with the frameworks of one Python, which were looked for once."""
        return self._preflights.setdefault(python, Preflight(python))

    def _claims(self, pool: str, uuid: str) -> tuple[ClaimInfo, ...]:
        return self._client.inspect(pool_name(pool, uuid)).claims

    def _marks(self, host: str, cards: Collection[str]) -> Mapping[str, str]:
        found = quarantined(self._client, host, cards)
        return {uuid: str(mark) for uuid, mark in found.items()}
