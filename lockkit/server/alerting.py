"""The alert engines of ``lockkit serve``: one for each store, and one set of channels that all of them use.

The log and ``alerts.jsonl`` in the state folder have each notification before any channel has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from lockkit.alerts.in_force import of_config
from lockkit.alerts.inbox import Inbox
from lockkit.alerts.linking import linked
from lockkit.alerts.opening import open_channels
from lockkit.alerts.running import Runner
from lockkit.alerts.sinks.to_log import ToLog
from lockkit.observe import journal
from lockkit.observe.exposition import Samples
from lockkit.server.stores import id_of

if TYPE_CHECKING:
    from lockkit.alerts.delivery import State
    from lockkit.alerts.notification import Notification
    from lockkit.alerts.opening import Channels
    from lockkit.config.config import Config
    from lockkit.sync.client import Client

__all__ = ["FILE", "Alerting", "inbox_for"]

FILE = "alerts.jsonl"
"""The journal of notifications, in the state folder. Only its owner can read it."""


def inbox_for(config: Config) -> Inbox | None:
    """An inbox with which the client of a server has to be connected; None if no alerts are wanted there.

    Raises:
        ConfigError: A rule is wrong.
    """
    return Inbox() if config.serve_alerts and of_config(config) else None


class Alerting:
    """The engines of some stores, and the channels. They run from :meth:`start` until :meth:`close`.

    Args:
        inboxes: The inbox of each client that alerts are wanted of.

    Raises:
        ConfigError: A rule or a channel is wrong.
        BackendUnavailable: There is no state folder.
    """

    def __init__(self, inboxes: Mapping[Client, Inbox]) -> None:
        self._channels: Channels | None = None
        self._runners: list[Runner] = []
        first = next(iter(inboxes), None)
        if first is None:
            return
        # A channel has one delivery, however many stores there are, because its limit counts for all of them.
        channels = open_channels(first.config, first.plugins.implementations("lockkit_sink"))
        self._channels = channels
        folder = first.config.state_place().path
        log = ToLog(partial(journal.append, folder, file=FILE))
        for client, inbox in inboxes.items():
            inbox.findings = channels.findings
            link = partial(linked, public_url=client.config.serve_public_url, store=id_of(client))
            tell = {key: _after(link, one.put) for key, one in channels.each.items()}
            self._runners.append(Runner(client, inbox, [_after(link, log)], channels=tell))

    def samples(self) -> Samples:
        """The metrics of the channels."""
        states = [] if self._channels is None else self._channels.states()
        counted: Mapping[str, Callable[[State], int]] = {
            "waiting": lambda one: one.waiting,
            "failures": lambda one: one.failures,
            "set_aside": lambda one: one.set_aside,
            "given_up_total": lambda one: one.counts.given_up,
        }
        return {
            f"lockkit_alert_channel_{what}": {(("channel", one.channel),): float(of(one)) for one in states}
            for what, of in counted.items()
        }

    def start(self) -> None:
        """Start a thread for each store."""
        for one in self._runners:
            one.start()

    def close(self, within: float = 5.0) -> None:
        """End the engines ``within`` seconds, the channels in 2 s; the next start delivers the rest."""
        until = time.monotonic() + within
        for one in self._runners:
            one.close(0.0)
        for one in self._runners:
            one.close(max(until - time.monotonic(), 0.0))
        if self._channels is not None:
            self._channels.close()


def _after(
    change: Callable[[Notification], Notification], sink: Callable[[Notification], object]
) -> Callable[[Notification], object]:
    """A sink that gets each notification changed."""
    return lambda notification: sink(change(notification))
