"""Devices, such as GPUs: the facts that a device provider returns, and the contract of a provider.

A provider knows one kind of hardware: NVML's cards, simulated ones, those of another maker. The hook
``lockkit_devices`` offers it. This module does no I/O.

Sizes are bytes. An unknown value is None, and never guessed: a decision that needs it assumes the worst case.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lockkit.lib.namedtuples import NamedTuple

__all__ = ["BasicProvider", "Device", "DeviceProcess", "DeviceProvider", "DeviceWatch", "NoWatch", "Snapshot"]


class DeviceProcess(NamedTuple):
    """A process that computes on a device.

    Attributes:
        pid: The pid in the pid namespace of this process; None if it cannot be told, as in most containers.
        user: The name of its user, or the uid if that has no name; None if unknown.
        program: The name of its program, without arguments, which may contain secrets; None if unknown.
        memory: The bytes of the device that it uses; None if unknown.
    """

    pid: int | None = None
    user: str | None = None
    program: str | None = None
    memory: int | None = None


class Device(NamedTuple):
    """A device, or a slice of one, as one snapshot shows it.

    Attributes:
        uuid: The maker's unique name for it; "" if the device does not even report that.
        index: The number of the device on this host, in bus order. A slice has the number of its device.
        name: The model; "" if unknown.
        memory: All its bytes; None if unknown.
        reserved: The bytes of ``memory`` that the driver keeps for itself; 0 if it does not say.
        used: The bytes in use beyond ``reserved``; None if unknown. Unreported reserved bytes count here.
        utilisation: The percentage of the last moments in which it computed; None if unknown, as for slices.
        processes: The processes that compute on it; None if unknown. An empty tuple says that there are none.
        parent: The UUID of the device of which this is a slice; None for a whole device.
        faults: What is known to be wrong with it, a sentence each. Empty: nothing is known to be wrong.
        sliced: Whether the device is divided into slices, so that programs can use only those.
        aliases: Other names that programs know it by.
        unreachable: Whether the driver does not reach it now, which may pass, as during a reset. Such a
            device is given to nobody, and is quarantined without a hold only if that lasts.
        tolerated: The bytes in use to ignore while no process is seen; set from ``gpu.ignore_memory``.
        silent: Whether the driver has not answered about it in time, so that nobody knows what it is fit for.
        ignored: The processes of ``gpu.ignore``, kept out of ``processes`` by lockkit while they use little.
    """

    uuid: str
    index: int  # type: ignore[assignment]  # shadows the method of tuples, which nobody needs here
    name: str = ""
    memory: int | None = None
    reserved: int = 0
    used: int | None = None
    utilisation: int | None = None
    processes: tuple[DeviceProcess, ...] | None = None
    parent: str | None = None
    faults: tuple[str, ...] = ()
    sliced: bool = False
    aliases: tuple[str, ...] = ()
    unreachable: bool = False
    tolerated: int = 1 << 30
    silent: bool = False
    ignored: tuple[DeviceProcess, ...] = ()

    @property
    def ignored_bytes(self) -> int:
        """The bytes of ``used`` that ignored programs have, as far as they are known."""
        return sum(one.memory or 0 for one in self.ignored)

    @property
    def usable(self) -> int | None:
        """The bytes that programs can share: all but those that the driver reserves. None if unknown."""
        return None if self.memory is None else max(self.memory - self.reserved, 0)

    @property
    def free(self) -> int | None:
        """The bytes that are not in use. None if unknown."""
        if self.memory is None or self.used is None:
            return None
        return max(self.memory - self.reserved - self.used, 0)


class Snapshot(NamedTuple):
    """All devices of a provider, looked at once. One snapshot serves one decision.

    Attributes:
        taken: When the provider looked, in seconds since the epoch.
        devices: The devices by index. The slices of a device follow it.
        remarks: What the provider could not find out about the host, a sentence each.
    """

    taken: float
    devices: tuple[Device, ...] = ()
    remarks: tuple[str, ...] = ()

    def device(self, uuid: str) -> Device | None:
        """The device with this UUID; None if there is none."""
        return next((one for one in self.devices if one.uuid == uuid), None) if uuid else None


class DeviceWatch(Protocol):
    """A watch over some devices, from its start until ``close``, for faults that a snapshot does not show."""

    def faults(self, uuid: str) -> tuple[str, ...]:
        """The faults of a device since the watch began, a sentence each. Does not block."""

    def close(self) -> None:
        """End the watch. May be called again."""


class DeviceProvider(Protocol):
    """The source of one kind of device. Thread-safe, and usable in a forked child."""

    @property
    def name(self) -> str:
        """A short name, which no other provider has: ``nvml``."""

    def snapshot(self) -> Snapshot:
        """Look at all devices, in one pass.

        May block, for as long as the driver does; callers bound that. A device that does not answer is listed
        with a fault, and does not hide the others. If a provider has a method ``snapshot_within(seconds)``,
        lockkit calls that one; it lists a device that has not answered by then as unreachable.

        Raises:
            DevicesUnavailable: There are no such devices, or none can be examined, with what to do.
        """

    def watch(self, uuids: Sequence[str]) -> DeviceWatch:
        """Watch some devices for faults that no snapshot shows. Returns :class:`NoWatch` if impossible."""

    def close(self) -> None:
        """Let go of the driver, unless a watch is open, so a device can be reset. A later call reopens it."""


class BasicProvider:
    """A base for providers that leave out what they cannot do: they watch nothing, and keep nothing open."""

    def watch(self, uuids: Sequence[str]) -> DeviceWatch:  # noqa: ARG002 (the contract's)
        """Nothing is watched."""
        return NoWatch()

    def close(self) -> None:
        """Nothing is open."""


class NoWatch:
    """The watch of a provider that cannot watch."""

    def faults(self, uuid: str) -> tuple[str, ...]:  # noqa: ARG002 (the contract's)
        """Nothing is known."""
        return ()

    def close(self) -> None:
        """Nothing is open."""
