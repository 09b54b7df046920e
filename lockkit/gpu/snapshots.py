"""One look at all devices of this host: the providers to ask, and one snapshot of their answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from lockkit.config.layers import ARGUMENT
from lockkit.errors import ConfigError, DevicesNotReady, DevicesUnavailable
from lockkit.gpu.devices import Device, DeviceProvider, Snapshot
from lockkit.gpu.unreturned import ProviderCall, give_up_late, has_returned
from lockkit.gpu.words import WITHOUT, how_many
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable
from lockkit.plugins.calling import Outcome, call_within
from lockkit.values.sizes import GIB, parse

if TYPE_CHECKING:
    from lockkit.config.config import Config
    from lockkit.plugins import PluginManager

__all__ = ["PATIENCE", "Looking", "let_go", "look", "looking", "providers", "simulated_cards", "simulation"]

PATIENCE = 5.0
"""Seconds for one look of a provider, if no ``gpu.patience`` is configured, and for any other call."""

_CARDS = 0.8
"""The part of that time which the cards of a provider have."""


class Looking(NamedTuple):
    """The way in which devices are looked at.

    Attributes:
        patience: Seconds after which a provider that has not answered is left out.
        ignore: The names of programs that do not make a device busy.
        tolerated: The bytes that they may use together, and up to which a device without others is unused.
    """

    patience: float = PATIENCE
    ignore: tuple[str, ...] = ()
    tolerated: int = GIB


USUAL = Looking()


def looking(config: Config) -> Looking:
    """The way in which devices are looked at, by the configuration."""
    return Looking(
        config.gpu_patience,
        config.gpu_ignore,
        parse(config.gpu_ignore_memory, what="gpu.ignore_memory", zero=True),
    )


NO_MEMORY = "the driver says that it has no memory at all"
"""The fault of a device with 0 bytes, as a defective one may be listed."""


def simulated_cards(config: Config, simulate: int | None = None) -> int:
    """The number of simulated cards in place of the host's: ``simulate``, or as configured; 0 for none."""
    return config.gpu_simulate if simulate is None else simulate


def simulation(config: Config, plugins: PluginManager, simulate: int | None = None) -> str | None:
    """A sentence for a request on simulated cards, and where that was configured; None for real ones.

    Looks at the real cards of the host if the simulation is a setting, which may have been forgotten.

    Args:
        config: The configuration.
        plugins: The plugins.
        simulate: The number of cards that the caller asks to simulate; None for what the configuration says.

    Raises:
        ConfigError: The simulation is a setting, and this host has real cards, which nobody would hold.
    """
    count = simulated_cards(config, simulate)
    if not count:
        return None
    source = config.source("gpu_simulate") if simulate is None else ARGUMENT
    if source == ARGUMENT:
        return f"{how_many(count)} simulated: no real GPU is held"
    real = _offered(plugins)
    try:
        found = look(real, looking(config)).devices
    except DevicesUnavailable:
        found = ()
    finally:
        let_go(real)
    if found:
        raise ConfigError(
            f"{how_many(count)} would be simulated ({source}),"
            " but this host has real ones, which nobody would hold",
            hint=f"{'unset' if source.isupper() else 'remove gpu.simulate from'} {source};"
            f" if simulated ones are meant: --gpu-sim {count}, or simulate={count} in a program",
        )
    return f"{how_many(count)} simulated ({source}): no real GPU is held"


def providers(
    config: Config, plugins: PluginManager, *, simulate: int | None = None
) -> tuple[DeviceProvider, ...]:
    """The providers whose devices are looked at: simulated ones alone if asked for, else all plugins'.

    Args:
        config: The configuration.
        plugins: The plugins.
        simulate: The number of cards to simulate; None for what the configuration says.

    Raises:
        ConfigError: The number is negative or too large.
    """
    count = simulated_cards(config, simulate)
    if not count:
        return _offered(plugins)
    from lockkit.config.settings import SETTINGS, read
    from lockkit.gpu.simulated import STATE_FILE, SimulatedProvider

    read(SETTINGS["gpu_simulate"], count)
    return (SimulatedProvider(count, config.state_place(create=False).path / STATE_FILE),)


def _offered(plugins: PluginManager) -> tuple[DeviceProvider, ...]:
    return cast("tuple[DeviceProvider, ...]", plugins.devices())  # which checks that each has the calls


def look(providers: Sequence[DeviceProvider], how: Looking = USUAL) -> Snapshot:
    """Look at the devices of some providers, which are asked at the same time.

    A provider without devices, or with an error or a late answer, hides no other one; a remark says so.

    Args:
        providers: The providers.
        how: The way in which they are looked at.

    Raises:
        DevicesUnavailable: No provider knows a device; the message has the reasons of those that failed.
        DevicesNotReady: The same, and one of the reasons may pass.
    """
    if not providers:
        raise DevicesUnavailable(
            "no plugin offers device providers, because the plugin gpu is disabled",
            hint="remove gpu from disable_plugins or LOCKKIT_DISABLE_PLUGINS",
        )
    taken = time.time()
    asked = [ProviderCall(one, _look(one, how.patience)) for one in providers if has_returned(one)]
    devices: dict[str, Device] = {}
    nameless: list[Device] = []
    remarks: list[str] = []
    failed: list[DevicesUnavailable] = []
    outcomes = call_within(how.patience, "devices", [(one.provider.name, one) for one in asked], {})
    give_up_late(asked)
    found = {one.plugin: one for one in outcomes}
    for name in [one.name for one in providers]:
        outcome = found.get(name) or Outcome(name, error=TimeoutError())
        answer = outcome.value
        if outcome.error is None and not isinstance(answer, Snapshot):
            failed.append(_broken(outcome.plugin, f"returned {type(answer).__name__}, not a Snapshot"))
        elif outcome.error is not None:
            failed.append(_reason(outcome.plugin, outcome.error, how.patience))
        else:
            assert isinstance(answer, Snapshot)
            remarks += answer.remarks
            for device in (_seen(one, how) for one in answer.devices):
                if not device.uuid:
                    nameless.append(device)
                elif device.uuid in devices:
                    remarks.append(f"{outcome.plugin} has the device {device.uuid} of another provider, too")
                else:
                    devices[device.uuid] = device
    if not devices and not nameless:
        raise _nothing(failed)
    return Snapshot(taken, (*devices.values(), *nameless), (*remarks, *map(str, failed)))


def _look(provider: DeviceProvider, patience: float) -> Callable[[], object]:
    """The look of a provider; one that can leave out a card that hangs does so in time to show the others."""
    within = getattr(provider, "snapshot_within", None)
    return provider.snapshot if within is None else partial(within, patience * _CARDS)


def _seen(device: Device, how: Looking) -> Device:
    """A device without ignored programs, unless they use too much, and faulty if it has no memory."""
    device = device._replace(tolerated=how.tolerated)
    if device.memory == 0:
        device = device._replace(faults=(*device.faults, NO_MEMORY))
    ignored = tuple(one for one in device.processes or () if one.program in how.ignore)
    device = device._replace(ignored=ignored)
    sizes = [one.memory for one in ignored if one.memory is not None]
    if not ignored or len(sizes) < len(ignored) or sum(sizes) > how.tolerated:
        return device  # unknown memory may be too much
    return device._replace(processes=tuple(one for one in device.processes or () if one not in ignored))


def let_go(providers: Sequence[DeviceProvider], *, patience: float = PATIENCE) -> None:
    """Let go of the drivers of some providers, so that a card can be reset. A later look reopens them.

    Returns after ``patience`` seconds at the latest, and raises no error. A provider that has not returned
    from an earlier call is left alone: its driver hangs.
    """
    asked = [ProviderCall(one, one.close) for one in providers if has_returned(one)]
    call_within(patience, "devices", [(one.provider.name, one) for one in asked], {})
    give_up_late(asked)


def _nothing(failed: Sequence[DevicesUnavailable]) -> DevicesUnavailable:
    """The error when no provider knows a device, with all failures' reasons: any may have the cards."""
    if len(failed) == 1:
        return failed[0]
    if not failed:
        return DevicesUnavailable("there is no GPU on this host", hint=WITHOUT)
    told = (
        f"{one.message} ({hint})" if (hint := (one.hint or "").removesuffix(f"; {WITHOUT}")) else one.message
        for one in failed
    )
    passes = any(isinstance(one, DevicesNotReady) for one in failed)
    return (DevicesNotReady if passes else DevicesUnavailable)("; ".join(told), hint=WITHOUT)


def _reason(provider: str, error: BaseException, patience: float) -> DevicesUnavailable:
    if isinstance(error, DevicesUnavailable):
        return error
    if isinstance(error, TimeoutError):
        return DevicesNotReady(
            f"the driver of the device provider {provider} has not answered within {patience:g} s",
            hint="a card may hang: see the kernel's log, dmesg;"
            " if cards take long to wake: nvidia-smi -pm 1, or a longer gpu.patience",
        )
    if isinstance(error, ConfigError):
        return DevicesUnavailable(error.message, hint=error.hint)
    return _broken(provider, f"raised {type(error).__name__}: {printable(str(error))}")


def _broken(provider: str, told: str) -> DevicesUnavailable:
    return DevicesUnavailable(f"the device provider {provider} {told}", hint="see: lockkit plugins")
