"""The hand-over of cards to one request: the receipts of their last holders, and notes of the new ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from lockkit.gpu.judging import Receipt
from lockkit.gpu.receipts import last, put_back, take_over
from lockkit.values.identity import process_of

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo
    from lockkit.sync.client import Client

__all__ = ["Handover"]


class Handover:
    """The hand-over of cards to one request.

    Args:
        client: The client.
        host: The name of the host in the store.
        whole: Whether the request is for whole cards.

    Attributes:
        receipts: How the last holders of the cards left them, by UUID.
    """

    def __init__(self, client: Client, host: str, *, whole: bool) -> None:
        self._client = client
        self._host = host
        self._whole = whole
        self._noted: dict[str, str] = {}
        self._used: Collection[str] | None = None
        self.receipts: dict[str, Receipt] = {}

    def left(self, uuid: str, holders: Sequence[ClaimInfo]) -> Receipt | None:
        """How the last holder of a card left it. One request.

        Raises:
            BackendError: The store does not answer.
        """
        return last(self._client, self._host, uuid, {one.claim_id for one in holders})

    def take(self, uuid: str, holders: Sequence[ClaimInfo]) -> None:
        """Note the new holder of a granted card, and learn how the last one left the card. Two requests.

        Args:
            uuid: The card.
            holders: The claims that hold it. The request gets cards one by one, and has the newest claim of
                this process. The keeper of an adopted job does not wait, so another process may have a newer
                one.

        Raises:
            CapacityMismatch: The whole card was asked for, and others may hold a part since a resize.
            BackendError: The store did not do it.
        """
        me = process_of(self._client.owner)
        ours = [one for one in holders if process_of(one.owner) == me]
        mine = max(ours, key=lambda one: one.fence, default=None)
        if mine is None:
            return  # the grant is lost already, and the request will learn it
        live = {one.claim_id for one in holders}
        found = take_over(self._client, self._host, uuid, live, mine, whole=self._whole)
        self._noted[uuid] = mine.claim_id
        if found is None:
            self.receipts.pop(uuid, None)
        else:
            self.receipts[uuid] = found
        if self._used is not None and uuid not in self._used:  # nobody waits for this answer any more
            self._put_back(uuid)

    def finish(self, used: Collection[str]) -> None:
        """Note which granted cards the request uses, and put back the others in the background."""
        self._used = used
        for uuid in list(self._noted):
            if uuid not in used:
                self._put_back(uuid)

    def _put_back(self, uuid: str) -> None:
        _in_background(partial(put_back, self._client, self._host, uuid, self._noted[uuid]))


def _in_background(call: Callable[[], object]) -> None:
    """Make a call that may wait for the store on a thread of its own, and ignore its errors."""

    def run() -> None:
        with suppress(Exception):
            call()

    with suppress(RuntimeError):  # no thread can be started
        threading.Thread(target=run, name="lockkit-gpu-receipt", daemon=True).start()
