"""Whether workers on other hosts can reach the broker of a Celery application."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from kombu.utils.url import url_to_parts

__all__ = ["shared_broker"]

_WITHIN = ("memory", "filesystem")
"""The transports whose messages stay in one process or on one host."""
_SERVICES = ("azureservicebus", "azurestoragequeues", "confluentkafka", "gcpubsub", "kafka", "sqs")
"""The transports whose URL need not name a host, and then means a service in the network."""


def shared_broker(conf: Any) -> bool:
    """Whether other hosts can reach a configuration's broker, by its URL; localhost is this host alone."""
    url = conf.broker_read_url or conf.broker_url or ""
    urls = url if isinstance(url, list | tuple) else str(url).split(";")
    return any(_reached(str(one)) for one in urls if one)


def _reached(url: str) -> bool:
    scheme, host = url_to_parts(url)[:2]
    kind = str(scheme or "").partition("+")[0]
    if kind in _WITHIN:
        return False
    if kind in _SERVICES:
        return True
    if not host or host.lower() in ("localhost", "localhost."):
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:  # a name
        return True
