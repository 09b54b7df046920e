"""The hooks that a plugin may implement, with their contracts.

A plugin is a module, or an object passed to ``connect(plugins=[...])``, whose functions are marked with
:data:`lockkit.hooks.hookimpl`. An implementation may leave out unneeded arguments. An exception of a hook
never breaks an acquire or a release; it is logged and, for cleanup hooks, reported. New versions only add
keywords.

The implementation registered last is called first: plugins in code, then installed ones, then lockkit's.
``tryfirst`` and ``trylast`` change the order. Hook wrappers are refused, because hooks are called one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import pluggy

from lockkit.hooks import PROJECT

if TYPE_CHECKING:
    import click

    from lockkit.alerts.notification import Notification
    from lockkit.config.config import Config
    from lockkit.facts import Alert, CleanupContext, Event, Finding, Owner
    from lockkit.plugins.providers import DeviceProvider
    from lockkit.store.spi import BackendSpec

__all__ = [
    "HealthClient",
    "Stats",
    "lockkit_alert",
    "lockkit_backends",
    "lockkit_cleanup",
    "lockkit_commands",
    "lockkit_devices",
    "lockkit_event",
    "lockkit_health",
    "lockkit_owner_alive",
    "lockkit_settings",
    "lockkit_sink",
    "lockkit_stats",
]

hookspec = pluggy.HookspecMarker(PROJECT)


class Stats(Protocol):
    """The counters of one client in one process, as a plugin reads them."""

    def __call__(self) -> Mapping[str, int]:
        """The counters by name; :data:`lockkit.values.events.COUNTERS` says what each counts."""

    @property
    def final(self) -> bool:
        """Whether the client is gone, and nothing counts any more; a reader that sees this may forget it."""


class HealthClient(Protocol):
    """The part of a client that a health hook may rely on. The hook gets the whole client."""

    @property
    def url(self) -> str:
        """The store's URL."""

    @property
    def namespace(self) -> str:
        """The namespace."""

    def check(self) -> Sequence[Finding]:
        """The store's own findings."""


@hookspec
def lockkit_backends() -> Sequence[BackendSpec]:
    """Offer stores: one :class:`~lockkit.store.spi.BackendSpec` for each, with its URL schemes.

    Called once, when a URL is looked up. Import the client library in ``BackendSpec.open``, not here or at
    load time. A spec for another API version, or with another plugin's scheme, is reported and skipped.
    """
    raise NotImplementedError


@hookspec
def lockkit_cleanup(context: CleanupContext) -> None:
    """Clean up before a lock is released: free a GPU, remove scratch files. Layer 1 of the release.

    Called once per release of a claim that was held, while the heartbeat still renews it, on a thread of its
    own with the caller's context variables. A hook that raises (even a ``BaseException``) stops neither the
    next hook nor the release. One that outlasts ``context.budget()`` is reported as RUNNING, and the release
    goes on.
    """


@hookspec
def lockkit_event(event: Event) -> None:
    """Record an event, for metrics, journals or traces. The kinds are :data:`lockkit.values.events.KINDS`.

    Called from a thread for this hook alone, never on the caller's critical path, in the order of events. A
    slow hook misses events, which are counted; a hook that hangs is skipped until it returns.
    """


@hookspec
def lockkit_alert(alert: Alert) -> None:
    """Deliver an alert to a person. The kinds are :data:`lockkit.values.events.ALERTS`.

    Called from a thread for this hook alone. The log has the alert already, so a failure loses one delivery.
    """


@hookspec
def lockkit_sink(notification: Notification) -> None:
    """Deliver a notification of the alert engine, or raise: then the hook is called again with it later.

    Called where alerts run, from a thread for this hook alone, one notification at a time. Each waits on
    disk: it may come twice, but is not lost. Raise ``lockkit.alerts.outcomes.NotDelivered`` if it was
    certainly not taken.
    """


@hookspec
def lockkit_devices() -> Sequence[DeviceProvider]:
    """Offer device providers (:class:`~lockkit.gpu.devices.DeviceProvider`), which list devices such as GPUs.

    Called once, when devices are first needed. Import the driver's library in ``DeviceProvider.snapshot``,
    not here or at load time. A provider with another one's name, or an object that is none, is reported and
    skipped.
    """
    raise NotImplementedError


@hookspec
def lockkit_health(client: HealthClient) -> Sequence[Finding]:
    """Check something, for ``lockkit doctor`` and health pages.

    Called on a thread of its own, also if the store does not answer. A hook that raises, or that has not
    returned after 5 s, becomes a finding as well.
    """
    raise NotImplementedError


@hookspec
def lockkit_owner_alive(owner: Owner) -> bool | None:
    """Say whether the owner of a claim lives (None: unknown), for :func:`lockkit.observe.recovery.recover`.

    Called only about an owner that this host sees dead, or does not see and gets no heartbeat of, at most
    once a look, on a thread of its own. A False removes the owner's claims at once, unless another oracle
    says True: answer it only if the owner cannot come back, and None for an unknown owner. A hook that
    raises, or has not returned after 5 s, counts as None, and overrules the False of another oracle.
    """
    raise NotImplementedError


@hookspec
def lockkit_commands(cli: click.Group) -> None:
    """Add commands to ``lockkit``: ``cli.add_command(...)``. The first of a name stays."""


@hookspec
def lockkit_settings(config: Config) -> None:
    """Read and check the plugin's own table ``[plugins.<dist>]``, before any other call of the plugin.

    Called by ``connect()``, and by ``lockkit config check`` and ``lockkit doctor``. Decode the table with
    :func:`lockkit.config.plugin_settings`, and keep the result for the other hooks. An exception is an error
    of the configuration: ``connect()`` raises ConfigError, so no lock is taken with settings that a cleanup
    cannot use. Only an installed plugin without a table, a cleanup hook and the store in use is reported and
    left out.
    """


@hookspec
def lockkit_stats(stats: Stats) -> None:
    """Take the counters of a client, for metrics. ``stats()`` reads them, at any time and from any thread.

    Called once in each process in which the client opens its store, so again in a forked child, before any
    event of that client, on the thread that opens the store: keep ``stats``, and return at once.
    """
