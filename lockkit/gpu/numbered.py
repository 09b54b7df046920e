"""One card that a program names itself: locked without the gate, because the request waits for no other."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

from lockkit.errors import ConfigError, DeadlockDetected
from lockkit.gpu.held_cards import held_by_caller
from lockkit.gpu.pools import card_pool
from lockkit.gpu.requests import HostCards
from lockkit.gpu.visible import ORDER, numbers_are_indices
from lockkit.lib.namedtuples import NamedTuple
from lockkit.notes.members import pool_name
from lockkit.shared.options import Options
from lockkit.store.spi import Refused
from lockkit.store.ttls import UsualTtl

if TYPE_CHECKING:
    from lockkit.aio.client import AsyncClient
    from lockkit.aio.locks import AsyncLock
    from lockkit.gpu.requests import CheckedRequest
    from lockkit.shared.lease import AnyLease
    from lockkit.sync.client import Client
    from lockkit.sync.locks import Lock

__all__ = ["FoundCard", "NumberedCards"]


class FoundCard(NamedTuple):
    """A card that a program has named.

    Attributes:
        uuid: The UUID of the card.
        request: The request for it, which knows the cards.
    """

    uuid: str
    request: CheckedRequest

    def refused(self) -> str | None:
        """Why a held card is not to be used: quarantined, faulty, or not reachable; else None. May block."""
        return self.request.chooser.judge(self.uuid)


class NumberedCards:
    """The cards of this host for programs that name them. Asks nothing before the first :meth:`find`.

    Args:
        client: The client.
        aio: The face of the client for asyncio; None to make one when it is needed.
    """

    def __init__(self, client: Client, aio: AsyncClient | None = None) -> None:
        self.client = client
        self._aio = aio

    @cached_property
    def aio(self) -> AsyncClient:
        """The client in a program with asyncio."""
        from lockkit.aio.client import AsyncClient  # late: many programs have no event loop

        return self._aio or AsyncClient(self.client)

    @cached_property
    def _cards(self) -> HostCards:
        return HostCards(self.client, simulate=None, host=None)

    @cached_property
    def _numbers_are_certain(self) -> bool:
        return numbers_are_indices(os.environ, self._cards.look().devices)

    async def aio_find(self, word: str, wait: float) -> FoundCard:
        """Find a card, as :meth:`find` does, on a thread."""
        began = time.monotonic()
        try:
            return await self.aio._engines.call_of_acquire(  # noqa: SLF001
                partial(self.find, word, wait), wait or self._cards.without_wait
            )
        except Refused as refused:
            raise self._cards.late(time.monotonic() - began) from refused

    def find(self, word: str, wait: float) -> FoundCard:
        """Find a card, whatever computes on it: the program that names it may do so itself. May block.

        Args:
            word: The index of the card, as ``lockkit gpu ls`` has it, or its UUID.
            wait: Seconds for the whole request.

        Raises:
            ConfigError: There is no such card, or it is not shown to the program, is divided, or is a slice.
            DevicesUnavailable: Nothing can be said about any card.
            AcquireTimeout: The time is up.
            DeadlockDetected: A ``lockkit run`` or task around this program holds the card until that ends.
            BackendError: The store cannot be used.
        """
        if word.isdigit() and not self._numbers_are_certain:
            raise ConfigError(
                f"GPU {word} may be another one for CUDA,"
                " which numbers cards of different models in an order of its own",
                name=self._cards.pool,
                hint=f"set {ORDER}=PCI_BUS_ID for this program,"
                " or name the card by its UUID; see: lockkit gpu ls",
            )
        request = self._cards.checked_within(
            wait,
            1,
            min_free=None,
            memory=None,
            model=None,
            ids=[word],
            allow_busy=True,
            settle=0.0,
            affinity=False,
        )
        (uuid,) = request.among
        if uuid in request.within:
            raise ConfigError(
                f"{word} is a slice of a GPU, which only lockkit.gpu.pool() can hold", name=self._cards.pool
            )
        return FoundCard(uuid, request)

    def around(self, card: FoundCard, wait: float) -> Sequence[str]:
        """The ids of the caller's claims, on any store, on a card that it would wait for. Does not block."""
        return held_by_caller(pool_name(card.request.pool, card.uuid)) if wait > 0.0 else ()

    async def aio_refuse_own(self, card: FoundCard, mine: Sequence[str]) -> None:
        """Refuse a wait, as :meth:`refuse_own` does, on a thread."""
        await self.aio._engines.call_on_thread(partial(self.refuse_own, card, mine, "task"))  # noqa: SLF001

    def refuse_own(self, card: FoundCard, mine: Sequence[str], who: str = "thread") -> None:
        """Refuse to wait for a card that the waiting thread or task holds itself. One request.

        Args:
            card: The card.
            mine: The claims that :meth:`around` has found.
            who: "thread" or "task", for the message.

        Raises:
            DeadlockDetected: One of these claims holds the card on this store.
            BackendError: The store does not answer.
        """
        name = pool_name(card.request.pool, card.uuid)
        holder = next((one for one in self.client.inspect(name).claims if one.claim_id in mine), None)
        if holder is not None:
            raise DeadlockDetected(
                f"this {who} holds {name!r}, a GPU of this host, and would wait for itself",
                name=name,
                holder=holder,
                hint="call the function without @gpu_lock where the program holds the GPU already,"
                " or release the GPU first",
            )

    async def aio_refused(self, card: FoundCard) -> str | None:
        """Why a card is given to nobody, as :meth:`FoundCard.refused` says it, on a thread."""
        return await self.aio._engines.call_on_thread(card.refused)  # noqa: SLF001

    def taken(self, card: FoundCard, lease: AnyLease) -> None:
        """Have a card that is held watched, and cleaned at its release. Does not block."""
        chooser, members = card.request.chooser, (card.uuid,)
        self._cards.granted(lease._driver, [lease], members, chooser)  # noqa: SLF001

    def given_up(self, card: FoundCard) -> None:
        """Note that a card is not used after all. Does not block."""
        self._cards.given_up(card.request.chooser)

    def lock(self, card: FoundCard, ttl: float | None) -> Lock:
        """The lock of the whole card, for a program with threads."""
        pool = card_pool(self.client, self._cards, card.request, self._options(ttl))
        return pool._lock_of(card.uuid)  # noqa: SLF001

    def aio_lock(self, card: FoundCard, ttl: float | None) -> AsyncLock:
        """The lock of the whole card, for a program with asyncio."""
        from lockkit.gpu.aio import card_pool

        pool = card_pool(self.aio, self._cards, card.request, self._options(ttl))
        return pool._lock_of(card.uuid)  # noqa: SLF001

    def _options(self, ttl: float | None) -> Options:
        if ttl is None:
            return {}
        # Never refused: the timeout of a lock that lockkit replaces is no ttl chosen for this store.
        return {"ttl": UsualTtl(ttl)}
