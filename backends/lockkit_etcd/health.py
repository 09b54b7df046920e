"""The checks of ``doctor`` on a cluster: known dangers for locks, and checks that could not be made."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence

from lockkit.facts import Finding
from lockkit.store.exchanges import Exchange
from lockkit.store.spi import Refused, Unknown
from lockkit_etcd import keys
from lockkit_etcd.failures import RIGHTS
from lockkit_etcd.store import EtcdStore
from lockkit_etcd.transport import LeaseGone, Put, Status, Txn

__all__ = ["check", "known_bad"]

_BROKEN = ((3, 5, 0), (3, 5, 2))
"""Versions that may lose data when they crash (etcd's own announcement, issue 13766)."""
_SINCE: dict[tuple[int, ...], int] = {(3, 4): 31, (3, 5): 13}
"""First patch versions in which a deposed leader stops answering keepalives at once; not relied on."""
_READS_SINCE: dict[tuple[int, ...], int] = {(3, 4): 42, (3, 5): 28, (3, 6): 9}
"""First patch versions in which a leader that was paused never answers a read with old data (etcd's issue
20418); not relied on either."""
_FULL = 0.8


def check(store: EtcdStore, budget: float) -> Exchange[Sequence[Finding]]:
    """Examine the cluster."""
    end = time.monotonic() + budget
    said = yield from store.transport.status(end - budget / 2)
    here = [each for each in said if isinstance(each, Status)]
    found = [Finding("transport", "ok", f"{store.transport.name} to {store.transport.where}")]
    found += [
        Finding(
            "member",
            "warning",
            str(each),
            "the other members answer; repair this one, or remove it from the URL",
        )
        for each in said
        if not isinstance(each, Status)
    ]
    found += [each for status in here for each in _member(status)]
    found.append(_cluster(here, len(said)))
    found.append((yield from _rights(store, end)))
    return found


def known_bad(said: Sequence[Status | Exception]) -> list[Finding]:
    """The reasons why the cluster is unsafe for locks: always (errors), or at this moment (warnings)."""
    here = [each for each in said if isinstance(each, Status)]
    return [each for status in here for each in _member(status) if each.severity != "ok"]


def _member(status: Status) -> list[Finding]:
    found = [_version(status)]
    if status.learner:
        found.append(
            Finding("member", "warning", f"{status.endpoint} is a learner", "name the voting members")
        )
    found += [
        Finding(
            "alarm",
            "error" if "NOSPACE" in each or "CORRUPT" in each else "warning",
            f"{status.endpoint}: {each}",
            "etcdctl alarm list; for NOSPACE compact, defrag, then alarm disarm",
        )
        for each in status.errors
    ]
    return found


def _version(status: Status) -> Finding:
    numbers = tuple(int(each) for each in re.findall(r"\d+", status.version)[:3])
    text = f"{status.endpoint}: etcd {status.version}"
    if len(numbers) == 3 and _BROKEN[0] <= numbers <= _BROKEN[1]:
        return Finding(
            "version", "error", f"{text} may lose data that it has confirmed as stored", "upgrade etcd"
        )
    if numbers < (3, 4):
        return Finding("version", "error", f"{text} is too old", "upgrade etcd to 3.4 or later")
    if numbers[2:] < (_SINCE.get(numbers[:2], 0),):
        hint = "lockkit checks each keepalive itself, but upgrade etcd"
        return Finding("version", "warning", f"{text} lets a deposed leader answer keepalives", hint)
    mended = _READS_SINCE.get(numbers[:2], 0)
    if numbers[2:] < (mended,):
        text += (
            f"; {numbers[0]}.{numbers[1]}.{mended} mends stale reads after a pause of the leader, "
            "on which no lock depends"
        )
    return Finding("version", "ok", text)


def _cluster(here: Sequence[Status], named: int) -> Finding:
    leaders = {status.leader for status in here}
    if not here or 0 in leaders:
        return Finding("cluster", "error", "there is no leader", "see etcdctl endpoint status --cluster")
    if len(leaders) > 1:
        return Finding(
            "cluster", "warning", "the members name different leaders", "during an election this passes"
        )
    size = max(status.size for status in here)
    text = f"{len(here)} of {named} members answered; the database has {max(size / 1e6, 0.1):.1f} MB"
    if named == 1:
        hint = "name all members in the URL, so that locks outlive this one"
        return Finding("cluster", "ok", text, hint)
    return Finding("cluster", "ok", text)


def _told(trouble: Exception) -> tuple[str, str]:
    if isinstance(trouble, (Refused, Unknown)):
        return trouble.error.message, trouble.error.hint or RIGHTS
    return str(trouble), RIGHTS


def _rights(store: EtcdStore, end: float) -> Exchange[Finding]:
    """Find out whether this user may lock, by writing a key on a lease that is then revoked."""
    try:
        began = time.monotonic()
        yield from store.range(keys.queue(store.namespace, "doctor"), end)
        took = time.monotonic() - began
    except (Refused, Unknown) as trouble:
        return Finding("rights", "error", *_told(trouble))
    lease = None
    found = Finding("rights", "ok", f"it reads and writes; a read took {took * 1000:.1f} ms")
    try:
        lease = yield from store.leases.grant(5, end)
        key = store.note(f"doctor-{secrets.token_hex(4)}")
        yield from store.txn(Txn((), (Put(key, b"{}", lease.id),)), end)
    except (Refused, Unknown, LeaseGone) as trouble:
        message, hint = _told(trouble)
        found = Finding("rights", "error", message, f"observers may look but not lock; {hint}")
    if lease is not None:
        try:
            yield from store.transport.revoke(lease.id, end)
        except (Refused, Unknown, LeaseGone):
            pass
    return found
