"""The visibility timeout of a broker: seconds until another worker gets an unacknowledged message."""

from __future__ import annotations

from typing import Any

__all__ = ["visibility_timeout"]

_USUAL = {
    "redis": 3600.0,
    "rediss": 3600.0,
    "sentinel": 3600.0,
    "sqs": 1800.0,
    "pgmq": 1800.0,
    "slmq": 1800.0,
}
"""The timeouts of the transports that have one, as kombu has them."""


def visibility_timeout(conf: Any) -> float | None:
    """The visibility timeout of a configuration's broker in seconds; None if it has none, or if unknown."""
    usual = _USUAL.get(_transport(conf))
    if usual is None:
        return None
    told = (conf.broker_transport_options or {}).get("visibility_timeout", usual)
    return float(told) if isinstance(told, int | float) and told > 0 else usual


def _transport(conf: Any) -> str:
    if conf.broker_transport:
        return str(conf.broker_transport)
    url = conf.broker_read_url or conf.broker_url or ""
    if isinstance(url, list | tuple):
        url = url[0] if url else ""
    return str(url).partition(":")[0].partition("+")[0]
