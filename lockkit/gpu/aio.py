"""The cards of this host as a pool, in a program with asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING, Unpack

from lockkit.aio.lease import AsyncLease
from lockkit.aio.leases import AsyncPoolLeases
from lockkit.aio.pools import AsyncPool
from lockkit.aio.shortform import Acquiring
from lockkit.errors import AcquireTimeout
from lockkit.facts import Reason, ReleaseReports
from lockkit.gpu.devices import Device
from lockkit.gpu.requests import HostCards
from lockkit.gpu.visible import By, cuda_variables
from lockkit.gpu.watching import look_soon
from lockkit.lib.environment import EnvironmentSet
from lockkit.shared.options import DEFAULT, Default, Options
from lockkit.store.spi import Refused

if TYPE_CHECKING:
    from lockkit.aio.client import AsyncClient
    from lockkit.aio.composites import AsyncTaking
    from lockkit.gpu.card_chooser import CardChooser
    from lockkit.gpu.held_cards import HeldCards
    from lockkit.gpu.judging import Receipt
    from lockkit.gpu.requests import CheckedRequest
    from lockkit.lib.caller import Caller
    from lockkit.protocol.call import Call, OnWait
    from lockkit.shared.composites import AnyTaking, Request

__all__ = ["AsyncGpuLeases", "AsyncGpuPool", "card_pool", "pool"]


class AsyncGpuLeases(AsyncPoolLeases):
    """The leases of some cards in a program with asyncio: as :class:`~lockkit.gpu.GpuLeases`, with ``await``.

    Attributes:
        devices: The cards, as they were seen when they were granted.
        receipts: How the last holder left each card, by UUID; none for a card that nobody has held before.
        held_cards: What their cleanup needs.
    """

    __slots__ = ("devices", "held_cards", "receipts")

    devices: tuple[Device, ...]
    receipts: Mapping[str, Receipt]
    held_cards: HeldCards

    async def release(self, reason: Reason = "normal", *, raise_failed: bool = False) -> ReleaseReports:
        """Release the cards, and end their watch; see :meth:`lockkit.aio.AsyncLeases.release`."""
        try:
            return await super().release(reason, raise_failed=raise_failed)
        finally:
            look_soon()

    def environment(self, by: By | None = None) -> Mapping[str, str]:
        """The variables that show a child only these cards; see :meth:`lockkit.gpu.GpuLeases.environment`."""
        self.ensure_held()
        return cuda_variables(self.devices, by=by)

    def visible(self, by: By | None = None) -> AbstractContextManager[Mapping[str, str]]:
        """Set :meth:`environment` for all tasks of this process, as :meth:`lockkit.gpu.GpuLeases.visible`."""
        return EnvironmentSet(self.environment(by))


class _CardPool(AsyncPool):
    """The pool of a host's cards, for one request, whose chooser knows the cards."""

    cards: HostCards
    chooser: CardChooser

    def _made(self, leases: list[AsyncLease]) -> AsyncGpuLeases:
        made = AsyncGpuLeases(leases, self.within)
        made.devices = self.chooser.devices(made.members)
        made.held_cards = self.cards.granted(leases[0]._driver, leases, made.members, self.chooser)  # noqa: SLF001
        made.receipts = self.chooser.receipts(made.members)
        with suppress(RuntimeError):  # an executor that is shut down; and a file is no work for a loop
            # Only the end of the loop waits for this write, so that the next program finds the cards.
            asyncio.get_running_loop().run_in_executor(None, self.cards.remember, made.members)
        return made

    async def _take(
        self, call: Call, taken_at: Caller, wanted: Request | None = None
    ) -> AsyncPoolLeases | None:
        got = None
        try:
            got = await super()._take(call, taken_at, wanted)
            return got
        finally:
            if got is None:
                self.cards.given_up(self.chooser)

    async def _taken(self, taking: AsyncTaking, wanted: Request | None) -> AsyncPoolLeases | None:
        try:
            return await super()._taken(taking, wanted)
        except AcquireTimeout as error:
            raise self.cards.denied(error, self.chooser, waited=True) from None

    def _denied(self, taking: AnyTaking, wanted: Request | None) -> AcquireTimeout:
        error = super()._denied(taking, wanted)
        return self.cards.denied(error, self.chooser, waited=False, refused=taking.together.refused)


class AsyncGpuPool:
    """A reusable factory of leases on this host's cards: :class:`~lockkit.gpu.GpuPool`, with ``await``."""

    def __init__(
        self, client: AsyncClient, *, simulate: int | None, host: str | None, options: Options
    ) -> None:
        self._client = client
        self._cards = HostCards(client._client, simulate=simulate, host=host)  # noqa: SLF001
        # Refuses wrong options now rather than at the first call.
        client.pool(self.name, ["any card"], **options)
        self._options = options

    @property
    def name(self) -> str:
        """The name of the pool; see :attr:`lockkit.gpu.GpuPool.name`."""
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
    ) -> Acquiring[AsyncGpuLeases]:
        """Wait for some cards and hold them: ``await`` it, or ``async with cards.acquire() as leases:``.

        Arguments and errors as for :meth:`lockkit.gpu.GpuPool.acquire`. Threads ask the driver and the store,
        so the loop goes on. A cancelled acquire leaves nothing in the store.
        """

        async def acquired() -> AsyncGpuLeases:
            began, wait = time.monotonic(), self._cards.wait(timeout, self._options)
            check = partial(
                self._cards.checked_within,
                wait,
                count,
                began=began,
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
            engines = self._client._engines  # noqa: SLF001
            try:
                checked = await engines.call_of_acquire(
                    check, None if wait is None else wait or self._cards.without_wait
                )
            except Refused as refused:
                raise self._cards.late(time.monotonic() - began) from refused
            pool = card_pool(self._client, self._cards, checked, self._options)
            return await pool.acquire(  # type: ignore[return-value]  # what _made makes
                count,
                each=checked.each,
                among=checked.among,
                chooser=checked.chooser,
                timeout=checked.timeout,
                reason=reason,
                on_wait=on_wait,
            )

        return Acquiring(acquired())


def card_pool(client: AsyncClient, cards: HostCards, checked: CheckedRequest, options: Options) -> AsyncPool:
    """The pool that a request goes to. Its leases are :class:`AsyncGpuLeases`."""
    made = _CardPool(client._engines, checked.pool, checked.members, checked.within, options)  # noqa: SLF001
    made.cards, made.chooser = cards, checked.chooser
    return made


def pool(
    client: AsyncClient, *, simulate: int | None = None, host: str | None = None, **options: Unpack[Options]
) -> AsyncGpuPool:
    """The cards of this host as a pool; arguments and errors as for :func:`lockkit.gpu.pool`."""
    return AsyncGpuPool(client, simulate=simulate, host=host, options=options)
