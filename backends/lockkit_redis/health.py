"""``doctor``'s look at a server: what is known to be unsafe for locks, and what could not be found out."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lockkit.facts import Finding
from lockkit.spi import Refused
from lockkit_redis.wire import Wire, pack

__all__ = ["check"]


def check(wire: Wire, budget: float) -> Sequence[Finding]:
    """What there is to say of the server."""
    began = time.monotonic()
    text = wire.call(pack("INFO"), budget)
    took = time.monotonic() - began
    info = dict(
        line.split(":", 1)
        for line in text.decode(errors="replace").splitlines()
        if ":" in line and line[0] != "#"
    )
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "unknown")
    findings = [
        Finding("server", "ok", f"{name} {version}, answered in {took * 1000:.1f} ms"),
        _role(info),
        _policy(info),
        _persistence(info),
    ]
    findings += _rights(wire, budget)
    return findings


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
    return Finding(
        "persistence",
        "warning",
        "without an append-only file a restart forgets locks; their holders learn it at the next renewal",
        "appendonly yes; fences rise all the same",
    )


def _rights(wire: Wire, budget: float) -> list[Finding]:
    try:
        wire.call(pack("EVAL", "return redis.call('TIME')", 0), budget)
    except Refused as refusal:
        return [Finding("rights", "error", str(refusal.error), "observers may look but not lock")]
    return [Finding("rights", "ok", "scripts can be run")]
