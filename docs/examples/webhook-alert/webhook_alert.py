"""A plugin that posts lockkit's alerts to a webhook as JSON."""

from __future__ import annotations

import json
import urllib.request
from typing import Literal

import msgspec

from lockkit import hookimpl
from lockkit.config.config import Config, plugin_settings
from lockkit.facts import Alert

DIST = "webhook-alert"


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """The settings in [plugins.webhook-alert]."""

    url: str
    priorities: tuple[Literal["P0", "P1", "P2"], ...] = ("P0", "P1")
    timeout: float = 5.0
    """The seconds that one delivery may take."""

    def __post_init__(self) -> None:
        if not self.url.startswith(("https://", "http://")):
            raise ValueError("url must begin with https:// or http://")


class WebhookAlert:
    """The plugin, one instance per process."""

    settings: Settings

    @hookimpl
    def lockkit_settings(self, config: Config) -> None:
        """Read the plugin's own table before the first acquire. A typo is a ConfigError with file and key."""
        self.settings = plugin_settings(config, DIST, Settings)

    @hookimpl
    def lockkit_alert(self, alert: Alert) -> None:
        """Deliver one alert. Runs on a thread of lockkit's own; a release does not wait for it."""
        mine = self.settings
        if alert.priority not in mine.priorities:
            return
        told = {
            "kind": alert.kind,
            "priority": alert.priority,
            "message": alert.message,
            "lock": alert.name,
            "claim": alert.claim_id,
            "at_seconds": alert.at,
        }
        request = urllib.request.Request(  # noqa: S310 (the scheme was checked)
            mine.url, json.dumps(told).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=mine.timeout) as answer:  # noqa: S310
            if answer.url != mine.url:  # a redirect, on which urllib leaves the body behind
                raise OSError("the webhook redirects to another address, and has not taken the alert")


plugin = WebhookAlert()
