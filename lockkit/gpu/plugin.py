"""lockkit's own plugin for GPUs, registered by the usual hooks when something of it is first needed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from lockkit.hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import click

    from lockkit.gpu.devices import DeviceProvider

__all__ = ["OFFERED", "lockkit_commands", "lockkit_devices"]

OFFERED: Mapping[str, str] = {
    "card_meant": "cli.meant",  # the card that an unused name means
    "check": "well_again",  # recovery: the cards that are well again
    "finding": "checking",  # lockkit doctor
    "gpus_meant": "cli.meant",  # the same, as a hint
    "guarded": "cli.cards",  # lockkit run --gpu
    "has_cards": "host_pools",
    "host_pool": "host_pools",
    "how_many": "words",
    "models": "cli.completing",
    "pool_words": "cli.meant",  # lockkit explain
    "quarantine": "acts",  # an endpoint of the server
    "record_words": "card_records",
    "screen": "cli.tables",  # lockkit top
    "seen_here": "documents",  # another endpoint
    "simulated": "host_pools",
    "usable_cards": "cli.completing",
    "use_of": "usage",
    "use_words": "usage",
}
"""Functions that core and command line ask for by :func:`lockkit.hooks.of_gpus`, with their modules."""


def __getattr__(name: str) -> object:
    if name not in OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lockkit.gpu.{OFFERED[name]}"), name)


@hookimpl
def lockkit_commands(cli: click.Group) -> None:
    """Add ``lockkit gpu``."""
    from lockkit.gpu.cli.command import command

    cli.add_command(command)


@hookimpl(trylast=True)
def lockkit_devices() -> Sequence[DeviceProvider]:
    """Offer NVIDIA's cards. A simulation is not offered here: it replaces the providers of all plugins."""
    from lockkit.gpu.nvml import NvmlProvider

    return [NvmlProvider()]
