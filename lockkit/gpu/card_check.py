"""The check of a card after its grant, for a request with a preflight; a faulty card is quarantined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lockkit.gpu.devices import Device
from lockkit.gpu.faulty import take_out

if TYPE_CHECKING:
    from lockkit.gpu.preflight import Preflight
    from lockkit.sync.client import Client

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
        self._devices = devices

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
        if not verdict.faulty:
            return verdict.why
        # lasting: no look at the card shows what only a computation has found
        return take_out(
            self._client,
            self._host,
            self._devices,
            device.uuid,
            f"preflight: {verdict.why}",
            self._client.owner,
            self._client.driver().dispatcher.tell,
            lasting=True,
        )
