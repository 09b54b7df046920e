"""Health checks for ``doctor``: what makes a server unsafe for locks, and what could not be found out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from lockkit.errors import PermissionDenied
from lockkit.facts import Finding
from lockkit.store.budgets import left, shares
from lockkit.store.spi import Refused, Unknown
from lockkit_redis.connection import pack
from lockkit_redis.rights import rights
from lockkit_redis.server import Server
from lockkit_redis.store import RedisStore
from lockkit_redis.topology import SLOT_MAP, SLOTS

__all__ = ["check", "known_bad"]

_SETTLED = 300
"""Seconds after its start in which a server without a log of changes may have forgotten locks."""
_SPREAD = 16
"""Keys to try commands on: enough to find out that a server has only some of the slots."""
_TRIES = 500
"""Keys that are looked at to have one on each node of a Cluster."""
_SAME = {"role": "it is a replica", "memory": "it is out of memory"}
"""Refusals of a script for a reason that INFO has given already."""


def check(store: RedisStore, budget: float) -> Sequence[Finding]:
    """Examine the server, or each node of a Cluster.

    Raises:
        Refused, Unknown: No server answers.
    """
    end = time.monotonic() + budget
    servers = store.servers()
    keys = _keys(store, servers)
    found: list[Finding] = []
    troubles: list[Refused | Unknown] = []
    lacking: list[tuple[int, Server]] = []
    for server, until in shares(servers, end):
        try:
            said = _look(store, server, keys.get(server, []), until)
            if not store.topology.one:
                with contextlib.suppress(Refused):  # the user may not be allowed to ask
                    lacking.append((_without_a_node(store, server, until), server))
        except (Refused, Unknown) as trouble:
            troubles.append(trouble)
            said = [Finding("server", "error", trouble.error.message, trouble.error.hint or "")]
        found += said if len(servers) == 1 else [_of(server, each) for each in said]
    if troubles and len(troubles) == len(servers):
        raise troubles[0]
    if lacking:
        found.append(_coverage(*max(lacking, key=lambda each: each[0])))
    return found


def _look(store: RedisStore, server: Server, keys: Sequence[str], end: float) -> list[Finding]:
    began = time.monotonic()
    store.call(server, pack("PING"), left(end))
    answered = f"answered in {(time.monotonic() - began) * 1000:.1f} ms"
    try:
        info = _info(store, server, left(end))
    except Refused as refusal:
        found = [Finding("server", "ok", answered), _unknown(refusal)]
    else:
        name = "Valkey" if "valkey_version" in info else "Redis"
        version = info.get("valkey_version") or info.get("redis_version", "unknown")
        found = [
            Finding("server", "ok", f"{name} {version}, {answered}"),
            _role(info, store.copies),
            _memory(info),
            _persistence(info),
        ]
    tried = rights(store, server, keys[:_SPREAD], end)
    wrong = [each.check for each in found if each.severity == "error"]
    return [
        *found,
        *(each for each in tried if not any(_SAME.get(one, "\n") in each.message for one in wrong)),
    ]


def _unknown(refusal: Refused) -> Finding:
    hint = refusal.error.hint or ""
    if isinstance(refusal.error, PermissionDenied):
        hint = "add +info to the user's rights, so that lockkit can check them"
    text = f"version, role, memory policy and persistence are not known: {refusal.error.message}"
    return Finding("server", "warning", text, hint)


def _of(server: Server, found: Finding) -> Finding:
    """The same finding with the node in place of the URL, which all nodes share."""
    message = found.message.replace(server.where, server.node)
    return found._replace(message=message if server.node in message else f"{server.node}: {message}")


def _keys(store: RedisStore, servers: Sequence[Server]) -> dict[Server, list[str]]:
    """Unused keys for each server, in slots that it has; none for a server with next to no slots."""
    keys: dict[Server, list[str]] = {}
    for at in range(_TRIES):
        key = f"{store.channel}:{at}"  # no other client uses this name
        with contextlib.suppress(Refused):  # no node has the slot
            keys.setdefault(store.topology.at(key), []).append(key)
        if at >= _SPREAD and all(server in keys for server in servers):
            break
    return keys


def _without_a_node(store: RedisStore, server: Server, end: float) -> int:
    """The number of slots without an owner, as far as a node knows."""
    ranges = store.call(server, SLOT_MAP, left(end))
    return SLOTS - sum(int(last) + 1 - int(first) for first, last, *_ in ranges)


def _coverage(count: int, server: Server) -> Finding:
    if not count:
        return Finding("cluster", "ok", "every slot has a node")
    return Finding(
        "cluster",
        "error",
        f"{server.node} knows no node for {count} of {SLOTS} slots: names in them cannot be locked",
        "see CLUSTER INFO; redis-cli --cluster check HOST:PORT says which, "
        "and --cluster fix gives them a node",
    )


def known_bad(store: RedisStore, server: Server, budget: float) -> list[Finding]:
    """The reasons why a server is unsafe for locks: always (errors), or at this moment (warnings).

    None are known where INFO is forbidden. Passing troubles that refuse each acquire meanwhile, such as full
    memory, are left out: people must be able to look and to evict.
    """
    try:
        info = _info(store, server, budget)
    except (Refused, Unknown):
        return []
    found = [each for each in (_role(info, 0), _policy(info)) if each.severity == "error"]
    if info.get("aof_enabled") == "0" and int(info.get("uptime_in_seconds", _SETTLED)) < _SETTLED:
        found.append(_persistence(info))
    return found


def _info(store: RedisStore, server: Server, budget: float) -> dict[str, str]:
    text = store.call(server, pack("INFO"), budget).decode(errors="replace")
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and line[0] != "#")


def _role(info: dict[str, str], copies: int) -> Finding:
    if info.get("role", "master") != "master":
        return Finding("role", "error", "it is a replica, which takes no writes", "name the primary")
    count = int(info.get("connected_slaves", "0"))
    replicas = f"{count or 'no'} {'replicas' if count > 1 else 'replica'}"
    if count < copies:
        return Finding(
            "failover",
            "error",
            f"min_replicas={copies} asks for {copies} and it has {replicas}: every acquire is refused",
            "check the replicas, or set min_replicas lower; see INFO replication",
        )
    if not count:
        return Finding("failover", "ok", "it has no replica: nothing fails over")
    if not copies:
        copy = "copies" if count == 1 else "copy"
        return Finding(
            "failover",
            "warning",
            f"it has {replicas}, which {copy} later: a failover may lose a lock that was granted just before",
            "write ?min_replicas=1 to have an acquire wait for a copy; fences rise all the same",
        )
    waits = f"it has {replicas}, and an acquire waits for {copies} of {count} to have it"
    if copies == count:
        return Finding("failover", "ok", waits)
    return Finding(
        "failover",
        "warning",
        f"{waits}: a failover to another may lose a lock that was granted just before",
        f"min_replicas={count} waits for all, and refuses while one is away; fences rise all the same",
    )


def _memory(info: dict[str, str]) -> Finding:
    """Examine memory: the policy, and whether it is full."""
    limit = int(info.get("maxmemory", "0"))
    used = int(info.get("used_memory", "0")) - int(info.get("mem_not_counted_for_evict", "0"))
    policy = _policy(info)
    if policy.severity == "error" or not limit or used < limit:
        return policy
    shown = info.get("used_memory_human", used), info.get("maxmemory_human", limit)
    return Finding(
        "memory",
        "error",
        f"memory is full ({shown[0]} used, maxmemory {shown[1]}): every acquire is refused",
        "raise maxmemory, or find what fills it by MEMORY STATS or redis-cli --bigkeys",
    )


def _policy(info: dict[str, str]) -> Finding:
    policy = info.get("maxmemory_policy", "unknown")
    limit = info.get("maxmemory", "0")
    if policy not in ("noeviction", "unknown") and limit != "0":
        return Finding(
            "memory",
            "error",
            f"maxmemory-policy is {policy}: when memory is short the server throws locks away",
            "set maxmemory-policy noeviction, or use another server for locks",
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
        f"without an append-only file a restart forgets locks{since}; "
        "their holders learn it at the next renewal",
        "appendonly yes; fences rise all the same",
    )
