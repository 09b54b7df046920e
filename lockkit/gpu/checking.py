"""The finding of ``lockkit doctor`` about the GPUs of this host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lockkit.errors import BackendError, ConfigError, DevicesUnavailable
from lockkit.facts import Finding
from lockkit.gpu.homes import homes
from lockkit.gpu.hosts import host_name
from lockkit.gpu.joining import joined
from lockkit.gpu.known import Known, known, queue
from lockkit.gpu.marks import CARD_DAMAGED, DAMAGED
from lockkit.gpu.snapshots import let_go, look, looking, providers
from lockkit.gpu.states import cards, of_drivers, summary
from lockkit.gpu.unreturned import has_returned
from lockkit.gpu.words import short_name
from lockkit.views.looking import requests_waiting

if TYPE_CHECKING:
    from lockkit.config.config import Config
    from lockkit.gpu.devices import Snapshot
    from lockkit.plugins import PluginManager
    from lockkit.sync.client import Client

__all__ = ["finding"]

_DRIVER = Path("/proc/driver/nvidia/version")
"""A file that is there as long as NVIDIA's driver is loaded."""


def finding(
    config: Config, plugins: PluginManager, *, client: Client | None = None, driver: Path = _DRIVER
) -> Finding:
    """Report whether GPUs are usable, whether one is faulty, and whether a driver hangs. None is in order.

    Cards are counted as in ``lockkit gpu ls``. If the store cannot name the holders, no card is called free.

    Takes some seconds at most, also where a driver hangs.

    Args:
        config: The configuration.
        plugins: The plugins.
        client: A client of the store that knows the holders; None if it cannot be used.
        driver: A file that is there if this host should have cards.
    """
    asked = providers(config, plugins)
    try:
        seen = look(asked, looking(config))
    except DevicesUnavailable as error:
        if config.gpu_simulate or driver.exists() or not all(map(has_returned, asked)):
            return Finding("gpu", "warning", f"no GPU can be seen: {error.message}", error.hint or "")
        return Finding("gpu", "ok", f"no GPUs: {error.message}")
    finally:
        let_go(asked)
    found = cards(seen)
    faulty = [card for card in found if card.state == "faulty"]
    of_store, waiting = _known(client, seen) or ({}, 0)
    told = (
        f"{summary(joined(seen, of_store), waiting) if of_store else of_drivers(found)}"
        f"{' (simulated)' if asked[0].name == 'simulated' else ''}"
    )
    if not all(map(has_returned, asked)):
        return Finding("gpu", "warning", "; ".join((told, *seen.remarks)), "a card may hang: see dmesg")
    try:
        host_name(config)
    except ConfigError as error:
        return Finding("gpu", "warning", f"{told}; {error.message}", error.hint or "")
    for one in seen.devices:
        mark = of_store[one.uuid].quarantine if one.uuid in of_store else None
        if mark is not None and mark.reason in (DAMAGED, CARD_DAMAGED):
            hint = f"look at the card, then: lockkit gpu clear {one.uuid}"
            return Finding("gpu", "warning", f"{told}; {short_name(one)} is {mark}", hint)
    if faulty:
        first = f"{short_name(faulty[0].device)}: {faulty[0].reasons[0]}"
        return Finding("gpu", "warning", f"{told}; {first}", "see: lockkit gpu ls")
    return Finding("gpu", "ok", told)


def _known(client: Client | None, seen: Snapshot) -> tuple[dict[str, Known], int] | None:
    """The facts of the store about the cards, and how many requests wait; None if the store does not say."""
    if client is None:
        return None
    try:
        home = homes(client, host_name(client.config), seen.devices)
        gate = queue(client, home.host)
        of_store = known(client, home, seen.devices, gate)
    except (BackendError, ConfigError):
        return None  # the store, and the name of the host, have findings of their own
    return of_store, requests_waiting(gate, (card.waiters for card in of_store.values()))
