"""The opening of channels: from their tables in the configuration to deliveries."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lockkit.alerts.channels import Channel, channel, secret
from lockkit.alerts.delivery import Delivery, State, attempt
from lockkit.alerts.notification import Notification, Sink
from lockkit.alerts.outcomes import NotDelivered, Outcome
from lockkit.alerts.pacing import Limits
from lockkit.errors import ConfigError
from lockkit.facts import Finding
from lockkit.plugins.calling import Implementation
from lockkit.values.names import digest

if TYPE_CHECKING:
    from lockkit.config.config import Config

__all__ = [
    "FOLDER",
    "Channels",
    "channels_of",
    "deliver_once",
    "located",
    "open_channels",
    "plugin_sinks",
    "sink_of",
    "unusable",
]

FOLDER = "alert-spool"
"""The folder of the spools, in the state folder."""
_STEPS = 3
"""Steps of a delivery, each of which may take a channel's timeout, before the attempt is given up."""
_MORE = 5.0
"""Seconds to wait for a single delivery beyond the channel's timeout: each step of apprise may take that."""


def channels_of(tables: Mapping[str, Mapping[str, object]], sources: Mapping[str, str]) -> list[Channel]:
    """The channels of a configuration: ``channels_of(config.alerts.get("channels", {}), config.sources)``.

    Raises:
        ConfigError: A table is wrong. The message names the file and the key.
    """
    found = []
    for name, table in tables.items():
        try:
            found.append(channel(name, table))
        except ConfigError as error:
            raise located(sources, name, error) from None
    return found


def located(sources: Mapping[str, str], name: str, error: ConfigError) -> ConfigError:
    """The error with the file and the table of the channel that it is about."""
    source = sources.get(f"alerts.channels.{name}", "configuration")
    return ConfigError(f"{source}: [alerts.channels.{name}]: {error.message}", hint=error.hint)


def unread(one: Channel, environ: Mapping[str, str] | None = None) -> list[ConfigError]:
    """The secrets and files of a channel that this process cannot read, with the reasons."""
    found = []
    for reference in (one.url, one.key, one.sign, one.ca_file and f"file:{one.ca_file}"):
        try:
            secret(reference, environ)
        except ConfigError as error:
            found.append(error)
    return found


def unusable(one: Channel) -> Iterator[ConfigError]:
    """The reasons why this process cannot send over a channel: a secret, a library, a URL. Sends nothing."""
    lacking = unread(one)
    yield from lacking
    if lacking:
        return
    url = secret(one.url)
    try:
        if one.type == "apprise":
            from lockkit.alerts.sinks.through_apprise import understood

            understood(url)
        elif url and not re.match(r"https?://[^/]", url):
            yield ConfigError("the url must begin with https:// or http:// and a host")
    except NotDelivered as error:
        yield ConfigError(str(error))


def sink_of(one: Channel, environ: Mapping[str, str] | None = None) -> Sink:
    """The sink of a channel. Nothing is imported, read or opened before its first notification.

    Args:
        one: The channel.
        environ: The environment for ``env:``; None for that of this process.
    """
    key = partial(secret, one.key, environ)
    if one.type == "pagerduty":
        from lockkit.alerts.sinks.pagerduty import ENDPOINT, PagerDuty

        return PagerDuty(key, one.url or ENDPOINT, timeout=one.timeout, ca_file=one.ca_file)
    if one.type == "alertmanager":
        from lockkit.alerts.sinks.alertmanager import Alertmanager

        token = key if one.key else None
        url = partial(secret, one.url, environ)
        return Alertmanager(url, token, timeout=one.timeout, ca_file=one.ca_file)
    if one.type == "dingtalk":
        from lockkit.alerts.sinks import dingtalk

        sign: Callable[[], str] | None = partial(secret, one.sign, environ) if one.sign else None
        return dingtalk.DingTalk(
            key, sign, one.url or dingtalk.ENDPOINT, timeout=one.timeout, ca_file=one.ca_file
        )
    from lockkit.alerts.sinks.through_apprise import Apprise

    return Apprise(partial(secret, one.url, environ), timeout=one.timeout, form=one.format)


def plugin_sinks(implementations: Iterable[Implementation]) -> dict[str, Sink]:
    """The sinks of plugins, ``plugins.implementations("lockkit_sink")``, by names that no channel has."""
    sinks: dict[str, Sink] = {}
    for plugin, function in implementations:
        name = "@" + re.sub(r"[^A-Za-z0-9_-]", "-", plugin)[:32]
        while name in sinks:
            name += "-"
        sinks[name] = partial(_call, function)
    return sinks


def _call(function: Callable[..., object], notification: Notification) -> None:
    function(notification=notification)


def deliver_once(
    one: Channel, notification: Notification, environ: Mapping[str, str] | None = None
) -> Outcome:
    """Deliver a notification now, once, ignoring severities and limit: for ``lockkit alerts test``.

    Returns within the channel's timeout and 5 s, once what it needs is imported.
    """
    sink = sink_of(one, environ)
    getattr(sink, "prepare", lambda: None)()  # the time is that of the service
    return attempt(one.name, sink, notification, one.timeout + _MORE)


def open_channels(config: Config, implementations: Iterable[Implementation] = ()) -> Channels:
    """Open the channels of a configuration and of plugins; call it after a fork, and close the result.

    Args:
        config: The configuration.
        implementations: The sinks of plugins: ``plugins.implementations("lockkit_sink")``.

    Raises:
        ConfigError: The table of a channel is wrong.
        BackendUnavailable: There is no state folder.
    """
    channels = channels_of(config.alerts.get("channels", {}), config.sources)
    return Channels(channels, config.state_place().path, more=plugin_sinks(implementations))


class Channels:
    """The open channels: a delivery for each. Thread-safe.

    Args:
        channels: The channels.
        state_dir: The state folder, for the spools; None to keep everything in memory.
        more: Further sinks by name, such as those of plugins; they get notifications of all severities.
        environ: The environment for ``env:``; None for that of this process.

    Attributes:
        each: The deliveries. Two processes have a key in common only if their channel is configured alike.
    """

    def __init__(
        self,
        channels: Iterable[Channel],
        state_dir: Path | None,
        *,
        more: Mapping[str, Sink] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        folder = None if state_dir is None else state_dir / FOLDER
        channels = list(channels)
        self._unread = [(one.name, partial(unread, one, environ)) for one in channels]
        self.each = {
            f"{one.name}-{digest(repr(one))[:16]}": Delivery(
                one.name,
                sink_of(one, environ),
                folder,
                severities=one.severities,
                limits=Limits(one.limit, one.window),
                longest=_STEPS * one.timeout + _MORE,
            )
            for one in channels
        }
        self.each.update({name: Delivery(name, sink, folder) for name, sink in (more or {}).items()})

    def put(self, notification: Notification) -> bool:
        """Hand a notification to each channel for it; see :meth:`~lockkit.alerts.delivery.Delivery.put`."""
        taken = [one.put(notification) for one in self.each.values()]
        return all(taken)

    def states(self) -> list[State]:
        """The state of each channel."""
        return [one.state() for one in self.each.values()]

    def findings(self) -> list[Finding]:
        """A warning for each channel that fails, lacks its secret, or whose service refuses an alert."""
        found = [(name, error.message) for name, lacking in self._unread for error in lacking()]
        for one in self.states():
            if one.failures:
                times = "the last attempt" if one.failures == 1 else f"the last {one.failures} attempts"
                wait = "1 alert waits" if one.waiting == 1 else f"{one.waiting} alerts wait"
                found.append((one.channel, f"{times} failed, {wait}: {one.last_error}"))
            elif one.set_aside:
                many = "1 alert is" if one.set_aside == 1 else f"{one.set_aside} alerts are"
                found.append((one.channel, f"{many} refused and tried again: {one.last_error}"))
        return [
            Finding("alerts", "warning", f"channel {name}: {text}", f"lockkit alerts test {name}")
            for name, text in found
        ]

    def close(self, within: float = 2.0) -> int:
        """Stop all channels ``within`` seconds. Returns how many notifications wait for the next process."""
        import threading

        left: list[int] = []
        threads = [
            threading.Thread(target=lambda one=one: left.append(one.close(within)), daemon=True)
            for one in self.each.values()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(left)
