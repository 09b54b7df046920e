"""The device providers that plugins offer, and lockkit's own plugins that are no stores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol, TypeGuard

from lockkit.hooks import GPUS
from lockkit.plugins.calling import from_signal

__all__ = ["DEVICES", "SHIPPED", "DeviceProvider", "providers"]

DEVICES = "lockkit_devices"
"""The hook with which a plugin offers device providers."""

SHIPPED: Mapping[str, str] = {"gpu": GPUS, "gpu-cleanup": "lockkit.gpu.cleanup"}
"""lockkit's own plugins other than stores, with their modules. Each is imported when it is needed."""


class DeviceProvider(Protocol):
    """A device provider; ``lockkit.gpu.devices.DeviceProvider`` is the whole contract."""

    @property
    def name(self) -> str:
        """A short name, which no other provider has: ``nvml``."""


def providers(
    call: Callable[[], object], taken: Collection[str], report: Callable[[str], None]
) -> list[DeviceProvider]:
    """The providers that one plugin offers.

    Args:
        call: The plugin's implementation of the hook.
        taken: The names of the providers of other plugins.
        report: Called with a sentence for each error in the offer.
    """
    try:
        offer = call()
    except BaseException as error:  # also SystemExit: a plugin must not end the program
        if from_signal(error):
            raise
        report(f"{DEVICES} raised {error!r}")
        return []
    if not isinstance(offer, (list, tuple)):
        report(f"{DEVICES} must return a list, not {offer!r}")
        return []
    found: list[DeviceProvider] = []
    for one in offer:
        if not _is_provider(one):
            report(f"{DEVICES}: not a DeviceProvider, with name, snapshot(), watch() and close(): {one!r}")
        elif one.name in taken or any(one.name == other.name for other in found):
            report(f"another plugin already offers a device provider called {one.name!r}")
        else:
            found.append(one)
    return found


def _is_provider(one: object) -> TypeGuard[DeviceProvider]:
    name = getattr(one, "name", None)
    calls = [getattr(one, call, None) for call in ("snapshot", "watch", "close")]
    return isinstance(name, str) and bool(name) and not isinstance(one, type) and all(map(callable, calls))
