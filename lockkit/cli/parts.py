"""The parts that only the JSON documents of commands have (:mod:`lockkit.cli.documents`), as msgspec structs.

Parts that documents of the server have, too, are in :mod:`lockkit.views.parts`.
Times are given twice: RFC 3339 in UTC, and seconds since the epoch. Importing this module imports msgspec, so
commands import it only where they write JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import field

from lockkit.views.parts import (
    Claim,
    ClaimId,
    OrNull,
    Part,
    PastHold,
    PastStep,
    StoreKey,
    Time,
)

__all__ = [
    "AlertDelivery",
    "AlertRule",
    "Check",
    "DemoHold",
    "Evicted",
    "GpuJob",
    "GpuName",
    "HeldClaim",
    "Hook",
    "HostStep",
    "Layer",
    "LockUse",
    "Plugin",
    "RecoveryCase",
    "Released",
    "RunLease",
    "Sample",
    "Setting",
    "Topic",
    "Violation",
]


class AlertDelivery(Part):
    """The result of one test of a channel. `ended`: whether the end of the alert was taken, too."""

    channel: str
    service: str
    severity: str
    delivered: bool
    ended: bool
    error: str | None
    duration_seconds: float


class AlertRule(Part):
    """A rule of alerts. `when` is the kind of its condition, which `condition` has in words."""

    rule: str
    when: str
    condition: str
    for_seconds: float
    severity: Literal["P0", "P1", "P2", "alert"]
    command: OrNull[str]
    runbook: OrNull[str]


class HostStep(Part):
    """One thing that lockkit host has done, or would do. `subject` is the file, folder or group."""

    action: Literal[
        "make_group", "make_folder", "write_settings", "remove_settings", "remove_folder", "remove_group"
    ]
    subject: str
    text: str


class Hook(Part):
    """The result of one cleanup hook."""

    plugin: str
    outcome: str
    duration_seconds: float
    error: str | None


class Layer(Part):
    """The result of one layer of a release."""

    layer: Literal["cleanup", "normal", "emergency"]
    outcome: str
    duration_seconds: float
    error: str | None
    hooks: Sequence[Hook]


class Released(Part):
    """The result of a release, layer by layer."""

    outcome: Literal["RELEASED", "LOST", "ABANDONED", "KEPT"]
    reason: str
    expires_by: Time | None
    expires_by_seconds: float | None
    layers: Sequence[Layer]


class Sample(Part):
    """One value of a metric."""

    name: str
    labels: dict[str, str]
    value: float


class RunLease(Part):
    """One lock that a run held: its name, its member of the pool, and its release."""

    name: str
    member: str | None
    claim_id: ClaimId
    fence: int
    release: Released | None


class Setting(Part):
    """One setting, its value (null: not set), and where the value came from."""

    key: str
    value: str | float | bool | list[str] | None
    source: str


class Check(Part):
    """One check, of the demo or of a guard."""

    check: str
    ok: bool
    message: str


class DemoHold(Part):
    """One hold of the demo, certain from start to sure, in seconds of CLOCK_BOOTTIME."""

    worker: str
    start_seconds: float
    sure_seconds: float
    fence: int
    end: Literal["released", "lost", "killed"]


class HeldClaim(Part):
    """A claim that is held."""

    claim_id: ClaimId
    fence: int


class Plugin(Part):
    """One plugin, loaded or not."""

    name: str
    dist: OrNull[str]
    version: OrNull[str]
    source: Literal["store", "shipped", "installed", "code"]
    hooks: Sequence[str]
    import_time: float | None = field(name="import_seconds")
    disabled: bool
    error: str | None


class GpuJob(Part):
    """A job that runs already, whose GPUs a keeper holds."""

    pid: int
    user: str
    program: str


class GpuName(Part):
    """The names of a GPU: its UUID, its index, and its model (null: unknown)."""

    uuid: str
    index: int
    name: OrNull[str]


class Evicted(Part):
    """The user who evicted a claim, and the reason."""

    by: str
    reason: str


class Topic(Part):
    """A page of the documentation."""

    topic: str
    title: str


class RecoveryCase(Part):
    """One thing that recovery found. `outcome` is null if nothing was done; `seen` has the facts."""

    kind: str
    action: Literal["remove", "evict", "resolve", "fix", "tell"]
    name: str
    claim: Claim | None
    why: str
    tier: OrNull[Literal["warning", "soft", "hard"]]
    seen: Mapping[str, Any]
    outcome: OrNull[str]


class Violation(Part):
    """Holds that should have excluded each other, or fences that did not rise. `seconds`: least overlap.

    `steps` are of a `stale-write`: what a guarded resource accepted, the higher fence first.
    """

    kind: Literal["overlap", "fence", "same-fence", "stale-write"]
    key: StoreKey = field(name="store")
    name: str
    seconds: float
    holds: Sequence[PastHold]
    steps: Sequence[PastStep]


class LockUse(Part):
    """One user's use of a lock. `open` counts holds of unknown end, whose time does not count."""

    key: StoreKey = field(name="store")
    name: str
    card: str | None
    user: str
    holds: int
    open: int
    held_seconds: float
    idle_seconds: float
    waited_seconds: float
    in_vain: int
