"""The finding of ``lockkit doctor`` about the GPUs of this host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lockkit.errors import DevicesUnavailable
from lockkit.facts import Finding
from lockkit.gpu.snapshots import look, providers
from lockkit.gpu.states import cards, summary
from lockkit.gpu.words import short_name

if TYPE_CHECKING:
    from lockkit.config import Config
    from lockkit.plugins import PluginManager

__all__ = ["finding"]

_DRIVER = Path("/proc/driver/nvidia/version")
"""A file that is there as long as NVIDIA's driver is loaded."""


def finding(config: Config, plugins: PluginManager, *, driver: Path = _DRIVER) -> Finding:
    """Whether GPUs are known, and whether one of them is faulty. A host without any is in order.

    Args:
        config: The configuration.
        plugins: The plugins.
        driver: A file that is there if this host should have cards.
    """
    asked = providers(config, plugins)
    try:
        seen = look(asked)
    except DevicesUnavailable as error:
        if config.gpu_simulate or driver.exists():
            return Finding("gpu", "warning", f"no GPU can be seen: {error.message}", error.hint or "")
        return Finding("gpu", "ok", f"no GPUs: {error.message}")
    finally:
        for one in asked:
            one.close()
    found = cards(seen)
    faulty = [card for card in found if card.state == "faulty"]
    told = f"{summary(found)}{' (simulated)' if asked[0].name == 'simulated' else ''}"
    if faulty:
        first = f"{short_name(faulty[0].device)}: {faulty[0].reasons[0]}"
        return Finding("gpu", "warning", f"{told}; {first}", "see: lockkit gpu ls")
    return Finding("gpu", "ok", told)
