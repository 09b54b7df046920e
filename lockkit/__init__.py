"""lockkit: distributed locks with fences, on the coordination service you already run, or on none.

client = lockkit.connect()
with client.lock("gpu:0", ttl=30).acquire(timeout=600) as lease:
...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockkit._version import __version__
from lockkit.errors import (
    AcquireCancelled,
    AcquireError,
    AcquireTimeout,
    BackendError,
    BackendUnavailable,
    CapabilityError,
    CapacityMismatch,
    ConfigError,
    DeadlockDetected,
    DevicesNotReady,
    DevicesUnavailable,
    Drained,
    IncompatibleLayout,
    LeaseLost,
    LockkitError,
    NotHeld,
    OutcomeUnknown,
    OwnershipError,
    PermissionDenied,
    PluginError,
    ReleaseFailed,
    StaleFence,
)
from lockkit.facts import ClaimInfo, LockInfo, ReleaseReport, ReleaseReports, Skipped
from lockkit.notes.safe_names import safe_name
from lockkit.shared.copies import LeaseCopy
from lockkit.sync.client import Client, connect
from lockkit.sync.lease import Lease
from lockkit.sync.locks import Lock, RWLock
from lockkit.values.cancelling import Cancel
from lockkit.values.habits import HABITUAL

if TYPE_CHECKING:
    from lockkit import guard
    from lockkit.hooks import hookimpl
    from lockkit.sync.composites import AllOf, AnyOf
    from lockkit.sync.leases import Leases
    from lockkit.sync.pools import Pool, PoolLeases
    from lockkit.values.choosers import Choice, Chooser

__all__ = [
    "AcquireCancelled",
    "AcquireError",
    "AcquireTimeout",
    "AllOf",
    "AnyOf",
    "BackendError",
    "BackendUnavailable",
    "Cancel",
    "CapabilityError",
    "CapacityMismatch",
    "Choice",
    "Chooser",
    "ClaimInfo",
    "Client",
    "ConfigError",
    "DeadlockDetected",
    "DevicesNotReady",
    "DevicesUnavailable",
    "Drained",
    "IncompatibleLayout",
    "Lease",
    "LeaseCopy",
    "LeaseLost",
    "Leases",
    "Lock",
    "LockInfo",
    "LockkitError",
    "NotHeld",
    "OutcomeUnknown",
    "OwnershipError",
    "PermissionDenied",
    "PluginError",
    "Pool",
    "PoolLeases",
    "RWLock",
    "ReleaseFailed",
    "ReleaseReport",
    "ReleaseReports",
    "Skipped",
    "StaleFence",
    "__version__",
    "connect",
    "guard",
    "hookimpl",
    "safe_name",
]


_LATE = {
    "AllOf": "lockkit.sync.composites",
    "AnyOf": "lockkit.sync.composites",
    "Choice": "lockkit.values.choosers",
    "Chooser": "lockkit.values.choosers",
    "Leases": "lockkit.sync.leases",
    "Pool": "lockkit.sync.pools",
    "PoolLeases": "lockkit.sync.pools",
}
"""Classes that only a program which takes locks together needs, and the modules that define them."""


def __getattr__(name: str) -> object:
    if name in ("hookimpl", "hooks"):  # late: pluggy is imported only for programs that define a plugin
        from importlib import import_module

        hooks = import_module("lockkit.hooks")
        return hooks if name == "hooks" else hooks.hookimpl
    if name in _LATE:
        from importlib import import_module

        return getattr(import_module(_LATE[name]), name)
    if name in ("aio", "guard"):  # late: few programs need asyncio, or a guard
        from importlib import import_module

        return import_module(f"lockkit.{name}")
    if name in HABITUAL:  # a module is looked up here, too, each time that one of ours is first imported
        from lockkit.values.habits import missing

        error = missing("module", name)
        if error is not None:
            raise error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
