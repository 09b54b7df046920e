"""The examination of the servers for ``doctor``: version and kind, sessions granted, the login's rights."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence

from lockkit.facts import Finding
from lockkit.store.spi import Refused, Unknown
from lockkit_zookeeper.address import declared, tick_warning
from lockkit_zookeeper.connection import Connection
from lockkit_zookeeper.private import Delete, Exists, Sync
from lockkit_zookeeper.requests import Call
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = ["check"]

_GLANCE = 0.3
_SHORT, _LONG = 0.5, 2_000_000.0
"""Timeouts to ask for, in seconds; kazoo waits for the answer no longer than the first."""


def check(store: ZooKeeperStore, budget: float) -> Sequence[Finding]:
    """Examine the servers."""
    call = store.call(budget)
    began = time.monotonic()
    call.ask(Sync(store.paths.root))
    took = time.monotonic() - began
    findings = [*_server(call.connection, took), *_sessions(store, call.end)]
    missing, new = _chroot(store, call)
    # Nothing is created where the chroot does not exist: a typo must not leave a path on the servers.
    return findings + new if missing else [*findings, *new, _rights(store, call)]


def _chroot(store: ZooKeeperStore, call: Call) -> tuple[bool, list[Finding]]:
    """Whether there is no chroot; and a warning if nobody has used lockkit below it."""
    chroot, hint = store.address.chroot, "if others use it already, check the path in the URL"
    if not chroot:
        return False, []
    try:
        if call.ask(Exists(chroot, None)) is None:
            text = (
                f"the chroot {chroot} does not exist, so nobody has used lockkit there; "
                "the first lock creates it"
            )
            return True, [Finding("chroot", "warning", text, hint)]
        if call.ask(Exists(f"{chroot}/lockkit", None)) is None:
            text = f"nobody has used lockkit below the chroot {chroot} yet"
            return False, [Finding("chroot", "warning", text, hint)]
    except Refused as refusal:
        return False, [Finding("chroot", "warning", f"cannot find out whether {chroot} is in use: {refusal}")]
    return False, []


def _server(connection: Connection, took: float) -> list[Finding]:
    said = connection.word(b"srvr", _GLANCE)
    version = re.search(r"version: ([0-9.]+)", said)
    mode = re.search(r"Mode: (\w+)", said)
    found = [
        Finding(
            "server",
            "ok",
            f"ZooKeeper {version[1] if version else '(unknown version)'}, answered in {took * 1000:.1f} ms",
        )
    ]
    if version and tuple(int(part) for part in version[1].split(".")[:3] if part) < (3, 5, 3):
        found.append(
            Finding(
                "version",
                "error",
                "the server is too old: it has no container nodes",
                "use ZooKeeper 3.5.3 or later",
            )
        )
    if mode and mode[1] == "standalone":
        found.append(
            Finding(
                "ensemble",
                "warning",
                "the server is on its own: while it is down nobody gets a lock, "
                "and held locks are lost after their ttl",
                "run three servers",
            )
        )
    elif mode:
        found.append(Finding("ensemble", "ok", f"connected to a {mode[1]}"))
    return found


def _sessions(store: ZooKeeperStore, end: float) -> list[Finding]:
    """Find out which timeouts are granted, by asking for the shortest and for the longest."""
    can, tick = declared(store.address), store.address.tick
    probes = [Connection(store.address, asked, store.clock, until=end + 1.0) for asked in (_SHORT, _LONG)]
    try:
        for probe in probes:
            probe.start()
        for probe in probes:
            probe.wait(end - time.monotonic())
        least, most = (probe.granted for probe in probes)
    except (Refused, Unknown) as trouble:
        return [
            Finding("sessions", "warning", f"cannot find out which timeouts the servers grant: {trouble}")
        ]
    finally:
        for probe in probes:
            probe.close(goodbye=True)
    found = []
    if least > max(_SHORT, 2 * tick) + 0.001:
        found.append(Finding("tick", "warning", *tick_warning(least, tick)))
    grants = f"{least:g} to {most:g} s" if least > _SHORT + 0.001 else f"up to {most:g} s"
    if most < can.max_ttl or least > max(_SHORT, can.min_ttl):
        text = (
            f"the servers grant {grants}, of the {can.min_ttl:g} to {can.max_ttl:g} s "
            "that a ttl may be here; another one becomes the nearest"
        )
        hint = "set minSessionTimeout and maxSessionTimeout on the servers, or write ?max_ttl="
        found.append(Finding("sessions", "warning", text, hint))
    return found or [Finding("sessions", "ok", f"the servers grant {grants}")]


def _rights(store: ZooKeeperStore, call: Call) -> Finding:
    path = f"{store.paths.clients}/check-{os.urandom(6).hex()}"
    try:
        call.make_parents(path, store.acl)
        call.ask(Delete(path, -1))
    except Refused as refusal:
        return Finding("rights", "error", str(refusal.error), "observers may look but not lock")
    return Finding("rights", "ok", "nodes can be created and deleted")
