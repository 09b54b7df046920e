"""Completion of GPUs in a shell, by index and UUID, and of their models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from lockkit.cli.completing import client_of, completer, config_of
from lockkit.errors import LockkitError

if TYPE_CHECKING:
    import click

    from lockkit.gpu.devices import Device

__all__ = ["cards", "marked_cards", "models", "usable_cards"]

_MODEL = re.compile(r"(?!HBM)[A-Z]+-?\d\w*")
"""Words that identify a model: H100, A100-SXM4, RTX4090."""


def _cards(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    for device in _devices(ctx):
        yield from _named(device, device.name)


def usable_cards(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """The cards that a program can use: not one that is divided into slices."""
    for device in _devices(ctx):
        if not device.sliced:
            yield from _named(device, device.name)


def _marked_cards(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """The cards that are quarantined, also one that is no longer seen."""
    from lockkit.gpu.marks import ALL
    from lockkit.gpu.quarantine import quarantined
    from lockkit.gpu.views import HostView

    with client_of(ctx) as client:
        host = HostView(client, ctx.params.get("simulate")).host
        marks = quarantined(client, host)
    seen = {}
    with suppress(LockkitError):
        seen = {device.uuid: device for device in _devices(ctx)}
    for uuid, mark in marks.items():
        if uuid == ALL:
            yield from ((each, told) for one in seen.values() for each, told in _named(one, str(mark)))
            continue
        yield from _named(seen[uuid], str(mark)) if uuid in seen else [(uuid, str(mark))]


def models(ctx: click.Context, _incomplete: str) -> Iterator[tuple[str, str]]:
    """The models, and the words of their names that identify them, such as H100."""
    for name in dict.fromkeys(device.name for device in _devices(ctx) if device.name):
        yield from ((word, name) for word in name.split() if _MODEL.fullmatch(word))
        yield name, ""


def _named(device: Device, told: str) -> Iterator[tuple[str, str]]:
    """A card by its index and by its UUID; a slice has no index."""
    if device.index >= 0 and device.parent is None:
        yield str(device.index), told
    if device.uuid:
        yield device.uuid, told


def _devices(ctx: click.Context) -> tuple[Device, ...]:
    from lockkit.gpu.snapshots import look, looking, providers
    from lockkit.plugins import PluginManager

    config = config_of(ctx)
    plugins = PluginManager(disabled=config.disable_plugins)
    asked = providers(config, plugins, simulate=ctx.params.get("simulate"))
    return look(asked, looking(config)).devices


cards = completer(_cards)
"""The GPUs of this host, by index and UUID."""
marked_cards = completer(_marked_cards)
"""The GPUs that are quarantined."""
