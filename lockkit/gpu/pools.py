"""The cards of this host as a pool: any of them that will do, whole or shared by memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Unpack

from lockkit.errors import AcquireTimeout
from lockkit.facts import Owner, Reason, ReleaseReports
from lockkit.gpu.devices import Device
from lockkit.gpu.requests import HostCards
from lockkit.gpu.visible import By, cuda_variables
from lockkit.gpu.watching import look_soon
from lockkit.lib.environment import EnvironmentSet
from lockkit.shared.options import DEFAULT, Default, Options
from lockkit.sync.lease import Lease
from lockkit.sync.pools import Pool, PoolLeases

if TYPE_CHECKING:
    from lockkit.gpu.card_chooser import CardChooser
    from lockkit.gpu.held_cards import HeldCards
    from lockkit.gpu.judging import Receipt
    from lockkit.gpu.requests import CheckedRequest
    from lockkit.protocol.call import Call, OnWait
    from lockkit.shared.composites import AnyTaking, Request
    from lockkit.sync.client import Client
    from lockkit.sync.composites import Taking
    from lockkit.values.cancelling import Cancel

__all__ = ["GpuLeases", "GpuPool", "card_pool", "pool"]


class GpuLeases(PoolLeases):
    """The leases of some cards, the preferred one first; see :class:`~lockkit.Leases`.

    Attributes:
        devices: The cards, as they were seen when they were granted.
        receipts: How the last holder left each card, by UUID; none for a card that nobody has held before.
        held_cards: What their cleanup needs.
    """

    __slots__ = ("devices", "held_cards", "receipts")

    devices: tuple[Device, ...]
    receipts: Mapping[str, Receipt]
    held_cards: HeldCards

    def release(self, reason: Reason = "normal", *, raise_failed: bool = False) -> ReleaseReports:
        """Release the cards; see :meth:`lockkit.Leases.release`. From then on they are watched no more."""
        try:
            return super().release(reason, raise_failed=raise_failed)
        finally:
            look_soon()

    def environment(self, by: By | None = None) -> Mapping[str, str]:
        """The variables with which a child process sees these cards only.

        Args:
            by: ``index`` or ``uuid``; None for indices, or UUIDs if one is a slice, which has no index.

        Raises:
            ConfigError: A slice is to be named by an index, or a card is not NVIDIA's, and unknown to CUDA.
            LeaseLost, NotHeld: The cards are not held any more, so somebody else may have them.
        """
        self.ensure_held()
        return cuda_variables(self.devices, by=by)

    def visible(self, by: By | None = None) -> AbstractContextManager[Mapping[str, str]]:
        """Set the variables of :meth:`environment` in this process, for its children, during the ``with``.

        The environment belongs to the whole process: for children of several threads use :meth:`environment`.
        A program that has used CUDA itself no longer reads the variables.
        """
        return EnvironmentSet(self.environment(by))


class _CardPool(Pool):
    """The pool of a host's cards, for one request, whose chooser knows the cards."""

    cards: HostCards
    chooser: CardChooser

    def _made(self, leases: list[Lease]) -> GpuLeases:
        made = GpuLeases(leases, self.look, self.within)
        made.devices = self.chooser.devices(made.members)
        made.held_cards = self.cards.granted(leases[0]._driver, leases, made.members, self.chooser)  # noqa: SLF001
        made.receipts = self.chooser.receipts(made.members)
        self.cards.remember(made.members)
        return made

    def _take(self, call: Call, wanted: Request | None = None) -> PoolLeases | None:
        got = None
        try:
            got = super()._take(call, wanted)
            return got
        finally:
            if got is None:
                self.cards.given_up(self.chooser)

    def _taken(self, taking: Taking, wanted: Request | None) -> PoolLeases | None:
        try:
            return super()._taken(taking, wanted)
        except AcquireTimeout as error:
            raise self.cards.denied(error, self.chooser, waited=True) from None

    def _denied(self, taking: AnyTaking, wanted: Request | None) -> AcquireTimeout:
        error = super()._denied(taking, wanted)
        return self.cards.denied(error, self.chooser, waited=False, refused=taking.together.refused)


class GpuPool:
    """A reusable, thread-safe factory of leases on cards of this host, made by :func:`lockkit.gpu.pool`.

    Requests pass a gate one by one, first come, first served, as in any :class:`~lockkit.Pool`. The first one
    takes cards that will do, and looks again every 2 s: the end of a use without a lock wakes no waiter.

    Programs that take no lock are not kept out.

    Attributes:
        owner: The owner that claims show; None for this process as it is.
    """

    def __init__(self, client: Client, *, simulate: int | None, host: str | None, options: Options) -> None:
        self._client = client
        self._cards = HostCards(client, simulate=simulate, host=host)
        # Refuses wrong options now rather than at the first call.
        client.pool(self.name, ["any card"], **options)
        self._options = options
        self.owner: Owner | None = None

    @property
    def name(self) -> str:
        """The name of the pool: ``gpu/``, or ``gpu-sim/`` for simulated cards, and the name of the host."""
        return self._cards.pool

    def acquire(
        self,
        count: int = 1,
        *,
        min_free: int | str | None = None,
        memory: int | str | None = None,
        model: str | None = None,
        ids: Sequence[str] | None = None,
        allow_busy: bool = False,
        settle: float = 0.0,
        affinity: bool = True,
        accept_dirty: bool = False,
        preflight: bool | str = False,
        timeout: float | Default | None = DEFAULT,
        reason: str | None = None,
        on_wait: OnWait | None = None,
        cancel: Cancel | None = None,
    ) -> GpuLeases:
        """Wait for some cards and hold them.

        Args:
            count: The number of cards. Several are whole cards: CUDA shows no card beside a MIG slice.
            min_free: The free memory of each, ``"20GiB"`` or bytes. Without ``memory``, whole cards are held.
            memory: The memory of each to take, ``"8GiB"`` or bytes, including CUDA's own need; None for whole
                cards. Others share the rest.
            model: A part of its name, or a pattern with ``*``: ``"H100"``. Such a request blocks later ones.
            ids: The UUIDs of the cards that will do, at least their first 8 characters, or their indices;
                None for all. Only cards that ``CUDA_VISIBLE_DEVICES`` showed at the pool's creation count.
            allow_busy: Whether cards that are used without a lock will do.
            settle: Seconds for which memory of the last holder may drain, while this request keeps its place:
                after the end of a hold that it saw, and after the grant. After the grant it is at most 25 s.
            affinity: Whether the cards that this object took last come first; before it has taken any, those
                that this user had last on this host.
            accept_dirty: Whether cards will do on which their last holders left memory that no process has.
            preflight: Whether to compute on each card after its grant, with the torch or cupy of this Python,
                or of the Python at this path. A card that fails is given back and another one taken; a faulty
                one is quarantined. It takes a few seconds, and up to 22.
            timeout: Seconds to wait in all; None to wait for ever, 0 not to wait; by default as configured.
            reason: Why the cards are taken; see :meth:`lockkit.Lock.acquire`.
            on_wait: As :meth:`lockkit.Pool.acquire`; ``waiting.refused`` says why other cards do not do now.
            cancel: Ends the wait from another thread; see :class:`lockkit.Cancel`.

        Raises:
            ConfigError: The request can never be met; the error says why for each card.
            DevicesUnavailable: There are no cards, or none can be examined; the error says what to do.
            AcquireTimeout: The time is up; the error says why each card did not do, and what would help.
            AcquireError, BackendError: As :meth:`lockkit.Pool.acquire`.
        """
        checked = self._cards.checked_within(
            self._cards.wait(timeout, self._options),
            count,
            min_free=min_free,
            memory=memory,
            model=model,
            ids=ids,
            allow_busy=allow_busy,
            settle=settle,
            affinity=affinity,
            accept_dirty=accept_dirty,
            preflight=preflight,
        )
        pool = card_pool(self._client, self._cards, checked, self._options)
        pool.owner = self.owner
        # No call may come between: a signal must not strike where only this frame has the leases.
        return pool.acquire(  # type: ignore[return-value]  # what _made makes
            count,
            each=checked.each,
            among=checked.among,
            chooser=checked.chooser,
            timeout=checked.timeout,
            reason=reason,
            on_wait=on_wait,
            cancel=cancel,
        )


def card_pool(client: Client, cards: HostCards, checked: CheckedRequest, options: Options) -> Pool:
    """The pool that a request goes to. Its leases are :class:`GpuLeases`."""
    made = _CardPool(client._opening, checked.pool, checked.members, checked.within, options)  # noqa: SLF001
    made.cards, made.chooser = cards, checked.chooser
    return made


def pool(
    client: Client, *, simulate: int | None = None, host: str | None = None, **options: Unpack[Options]
) -> GpuPool:
    """The cards of this host as a pool.

        with lockkit.gpu.pool(client).acquire(count=1, min_free="20GiB") as leases, leases.visible():
            subprocess.run(["python", "train.py"])

    Args:
        client: The client. Its store must separate all users of the cards: one of this host, or of the fleet.
        simulate: The number of cards to simulate in place of the host's; None for the configured one.
        host: The name of this host in the store; None for the setting ``gpu.host``, or else its own.
        options: See :class:`~lockkit.shared.options.Options`; they are for each card.

    Raises:
        ConfigError: An option is not allowed, or a container lacks the setting ``gpu.host``.
    """
    return GpuPool(client, simulate=simulate, host=host, options=options)
