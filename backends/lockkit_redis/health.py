"""``doctor``'s look at a server: what is known to be unsafe for locks, and what could not be found out."""

from __future__ import annotations

import time
from collections.abc import Sequence

import redis.exceptions as theirs

from lockkit.facts import Finding
from lockkit.spi import Refused, Unknown
from lockkit_redis.failures import replied, unanswered
from lockkit_redis.line import pack
from lockkit_redis.wire import Wire

__all__ = ["check", "known_bad"]

_SETTLED = 300
"""Seconds after its start for which a server that keeps no log may have forgotten locks."""


def check(wire: Wire, channel: str, key: str | None, budget: float) -> Sequence[Finding]:
    """What there is to say of the server, to a client that listens on a channel and has a key there."""
    began = time.monotonic()
    wire.call(pack("PING"), budget)
    took = time.monotonic() - began
    try:
        info = _info(wire, budget)
    except Refused as refusal:
        return [
            Finding("server", "ok", f"answered in {took * 1000:.1f} ms"),
            Finding(
                "server",
                "warning",
                f"version, role, memory policy and persistence are not known: {refusal.error}",
                "add +info to the user's rights to have them looked at",
            ),
            _rights(wire, channel, key, budget),
        ]
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "unknown")
    return [
        Finding("server", "ok", f"{name} {version}, answered in {took * 1000:.1f} ms"),
        _role(info),
        _policy(info),
        _persistence(info),
        _rights(wire, channel, key, budget),
    ]


def known_bad(wire: Wire, budget: float) -> list[Finding]:
    """What makes the server no place for locks (errors), or not at this moment (warnings).

    Nothing where INFO is forbidden: then it is not known.
    """
    try:
        info = _info(wire, budget)
    except (Refused, Unknown):
        return []
    found = [each for each in (_role(info), _policy(info)) if each.severity == "error"]
    if info.get("aof_enabled") == "0" and int(info.get("uptime_in_seconds", _SETTLED)) < _SETTLED:
        found.append(_persistence(info))
    return found


def _info(wire: Wire, budget: float) -> dict[str, str]:
    text = wire.call(pack("INFO"), budget).decode(errors="replace")
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and line[0] != "#")


def _role(info: dict[str, str]) -> Finding:
    if info.get("role", "master") != "master":
        return Finding("role", "error", "it is a replica, which takes no writes", "name the primary")
    count = int(info.get("connected_slaves", "0"))
    if count:
        return Finding(
            "failover",
            "warning",
            f"it has {count} replicas, which copy later: a failover may lose a lock that was granted just before",
            "write ?min_replicas=1 to have an acquire wait for a copy; fences rise all the same",
        )
    return Finding("failover", "ok", "it stands alone: nothing fails over")


def _policy(info: dict[str, str]) -> Finding:
    policy = info.get("maxmemory_policy", "unknown")
    limit = info.get("maxmemory", "0")
    if policy not in ("noeviction", "unknown") and limit != "0":
        return Finding(
            "memory",
            "error",
            f"maxmemory-policy is {policy}: when memory is short it throws locks away",
            "set maxmemory-policy noeviction, or use a server of its own for locks",
        )
    return Finding("memory", "ok", f"maxmemory-policy {policy}" + ("" if limit != "0" else ", no limit"))


def _persistence(info: dict[str, str]) -> Finding:
    if info.get("aof_enabled") == "1":
        return Finding("persistence", "ok", "it keeps a log of changes (AOF)")
    age = int(info.get("uptime_in_seconds", _SETTLED))
    since = f" (it was started {age} s ago)" if age < _SETTLED else ""
    return Finding(
        "persistence",
        "warning",
        f"without an append-only file a restart forgets locks{since}; their holders learn it at the next renewal",
        "appendonly yes; fences rise all the same",
    )


def _rights(wire: Wire, channel: str, key: str | None, budget: float) -> Finding:
    keys = (
        () if key is None else (key,)
    )  # it is not read: that the script is given it is enough to be refused
    try:
        wire.call(pack("EVAL", "return redis.call('TIME')", len(keys), *keys), budget)
    except Refused as refusal:
        hint = f"observers may look but not lock; {refusal.error.hint}"
        return Finding("rights", "error", refusal.error.message, hint)
    line = wire.connect(budget)
    try:
        heard = line.ask(pack("SUBSCRIBE", channel), time.monotonic() + budget)
    except (theirs.RedisError, OSError) as error:
        raise unanswered(error, wire.where) from error
    finally:
        line.close()
    if isinstance(heard, theirs.RedisError):
        hint = "without it those who wait ask every two seconds instead of being told"
        return Finding("rights", "warning", str(replied(heard, wire)), hint)
    return Finding("rights", "ok", "scripts can be run, and wake-ups are heard")
