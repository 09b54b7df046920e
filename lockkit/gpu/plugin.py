"""lockkit's own plugin for GPUs, registered by the usual hooks when something of it is first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockkit.hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockkit.gpu.devices import DeviceProvider

__all__ = ["lockkit_devices"]


@hookimpl(trylast=True)
def lockkit_devices() -> Sequence[DeviceProvider]:
    """Offer NVIDIA's cards. A simulation is not offered here: it replaces the providers of all plugins."""
    from lockkit.gpu.nvml import NvmlProvider

    return [NvmlProvider()]
