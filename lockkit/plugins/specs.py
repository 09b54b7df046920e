"""Every hook that a plugin may implement, with what is asked of it and what is promised.

A plugin is a module, or an object handed to ``connect(plugins=[...])``, whose functions carry
:data:`lockkit.hooks.hookimpl`. A hook may leave out arguments that it doesn't need. Nothing that a hook raises breaks an
acquire or a release; it is logged and, for cleanup hooks, reported. Hooks grow only by keywords.

Implementations are called last registered first: those given in code, then installed ones, then lockkit's own;
``tryfirst`` and ``trylast`` move one. Hook wrappers are refused, because hooks are called one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from lockkit.hooks import hookspec

if TYPE_CHECKING:
    import click

    from lockkit.facts import Alert, CleanupContext, Event, Finding
    from lockkit.store.spi import BackendSpec

__all__ = [
    "HealthClient",
    "lockkit_alert",
    "lockkit_backends",
    "lockkit_cleanup",
    "lockkit_commands",
    "lockkit_devices",
    "lockkit_event",
    "lockkit_health",
]


class HealthClient(Protocol):
    """The part of a client that a health hook may rely on; it is handed the whole client."""

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

    Called once, when a URL is looked up. The client library is imported in ``BackendSpec.open``, not here and not when the
    plugin is loaded. A spec of another API version, or with a scheme that is taken, is reported and skipped.
    """
    raise NotImplementedError


@hookspec
def lockkit_cleanup(context: CleanupContext) -> None:
    """Clean up before a lock is released: free a GPU, drop a model, remove scratch files. Layer 1 of the release.

    Called once per release of a claim that was held, while the heartbeat still renews it, on a thread of its own with the
    caller's context variables. A hook that raises (``BaseException`` too) stops neither the next hook nor the release. One
    that takes longer than ``context.budget()`` is reported as RUNNING and the release goes on without it.
    """


@hookspec
def lockkit_event(event: Event) -> None:
    """Take note of something that happened: metrics, journals, traces. The kinds are :data:`lockkit.events.KINDS`.

    Called from a thread for this hook alone, never on the caller's critical path, in the order of events. A slow hook
    misses events, which are counted; one that hangs is skipped until it comes back.
    """


@hookspec
def lockkit_alert(alert: Alert) -> None:
    """Deliver something that a person should know. The kinds are :data:`lockkit.events.ALERTS`.

    Called from a thread for this hook alone. The log has the alert already, so a hook that fails loses only its own delivery.
    """


@hookspec
def lockkit_devices() -> Sequence[object]:
    """Offer device providers, which list and describe what can be locked as a device: GPUs, simulated ones."""
    raise NotImplementedError


@hookspec
def lockkit_health(client: HealthClient) -> Sequence[Finding]:
    """Look at something and say how it is, for ``lockkit doctor`` and health pages; a hook that raises is a finding too."""
    raise NotImplementedError


@hookspec
def lockkit_commands(cli: click.Group) -> None:
    """Add commands to ``lockkit``: ``cli.add_command(...)``. A name that is taken keeps its first owner."""
