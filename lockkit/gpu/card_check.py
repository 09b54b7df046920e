"""The check of a card after its grant, for a request with a preflight: a card that it finds faulty is quarantined, and somebody is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from lockkit.devices import Device
from lockkit.facts import Alert
from lockkit.gpu.host_pools import host_pool
from lockkit.gpu.quarantine import Capped, quarantine_faulty
from lockkit.gpu.words import long_name
from lockkit.members import pool_name

if TYPE_CHECKING:
    from lockkit.client import Client
    from lockkit.gpu.preflight import Preflight

__all__ = ["CardCheck"]


class CardCheck:
    """The check of the cards of one host.

    Args:
        client: The client.
        host: The name of the host in the store.
        preflight: The preflight.
        devices: All cards of the host.
    """

    def __init__(self, client: Client, host: str, preflight: Preflight, devices: Sequence[Device]) -> None:
        self._client = client
        self._host = host
        self._preflight = preflight
        self._cards = [one.uuid for one in devices if one.uuid and one.parent is None]
        self._parents = {one.uuid: one.parent for one in devices if one.parent is not None}

    def __call__(self, device: Device, until: float | None) -> str | None:
        """Compute on a card. Blocks for up to 22 s.

        Args:
            device: The card.
            until: The end of the request, by time.monotonic(); None for none.

        Returns:
            Why the card did not pass; None if it did.

        Raises:
            BackendError: The card is faulty, and the store did not keep that.
        """
        verdict = self._preflight.check(device, until)
        if verdict is None:
            return None
        return self._faulty(device, f"preflight: {verdict.why}") if verdict.faulty else verdict.why

    def _faulty(self, device: Device, why: str) -> str:
        me = self._client.owner
        # lasting: no look at the card shows what only a computation has found
        done = quarantine_faulty(
            self._client, self._host, device.uuid, why, me, self._cards, self._parents, lasting=True
        )
        if isinstance(done, Capped):
            limit = f"it is not quarantined, because {done.count} of its host are, and more are not without a person"
            self._alert(device, "gpu_not_quarantined", "P0", f"{why}; {limit}")
            return f"{why}; {limit}"
        if done.automatic and done.reason == why:
            self._alert(device, "gpu_quarantined", "P1", str(done))
        return f"{why}; it is quarantined (to give it back: lockkit gpu clear {device.uuid})"

    def _alert(self, device: Device, kind: str, priority: Literal["P0", "P1"], what: str) -> None:
        name = pool_name(host_pool(self._host), device.uuid)
        data = {"uuid": device.uuid, "host": self._host}
        self._client.driver().dispatcher.tell(
            Alert(kind, priority, f"{long_name(device)}: {what}", name, data=data)
        )
