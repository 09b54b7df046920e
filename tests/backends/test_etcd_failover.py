"""Three etcd members, of which the leader stands still for longer than a ttl and goes on, again and again.

Its first thread to run decides what it then revokes: on etcd 3.5.16, it revokes in one of two to eight such
failovers. test_etcd_terms.py scripts the interleavings; here they happen, or do not. A whole run
(``--lockkit-whole``) goes on for 20 failovers.
"""

from __future__ import annotations

import threading

import pytest

import lockkit
from lockkit.lib.clock import SYSTEM
from lockkit.testing.processes import installed, until
from support.etcd_transports import SCHEMES
from support.servers.etcd_groups import EtcdCluster

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")
TTL, NAMES = 4.0, 20
FAILOVERS, WHOLE = 4, 20
AFTERWARDS = 1.0
"""Seconds: the old leader looks for ended leases twice in that time."""


class Names:
    """Locks of one client that another waits for: when the first was last valid, and the second granted."""

    def __init__(self, client, other, turn):
        self.leases = [client.lock(f"{turn}-{at}", ttl=TTL).acquire(timeout=10) for at in range(NAMES)]
        self.valid = [0.0] * NAMES
        self.granted = {}
        self._over = threading.Event()
        standing = threading.Semaphore(0)
        self._threads = [
            threading.Thread(target=self._wait, args=(at, other.lock(f"{turn}-{at}", ttl=TTL), standing))
            for at in range(NAMES)
        ]
        for thread in self._threads:
            thread.start()
        for _ in range(NAMES):
            assert standing.acquire(timeout=20), "everybody waits"
        self._threads.append(threading.Thread(target=self._look))
        self._threads[-1].start()

    def _wait(self, at, lock, standing):
        try:
            lease = lock.acquire(timeout=60, on_wait=lambda _: standing.release())
        except lockkit.LockkitError as error:
            self.granted[at] = error
            return
        self.granted[at] = SYSTEM.now()
        lease.release()

    def _look(self):
        while not self._over.wait(0.002):
            for at, lease in enumerate(self.leases):
                now = SYSTEM.now()
                if lease.valid():
                    self.valid[at] = now

    def overlaps(self):
        """For how long two held each of the locks that two held."""
        found = {at: self.valid[at] - when for at, when in self.granted.items() if type(when) is float}
        return {at: seconds for at, seconds in found.items() if seconds > 0}

    def end(self):
        self._over.set()
        for lease in self.leases:
            lease.release()
        for thread in self._threads:
            thread.join(60)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_leader_that_stood_still_takes_nothing_from_anybody_when_it_goes_on(request, scheme):
    failovers = WHOLE if request.config.getoption("--lockkit-whole") else FAILOVERS
    with EtcdCluster(heartbeat_interval=100, election_timeout=1000) as cluster:
        for turn in range(failovers):
            fail_over(cluster, scheme, turn)


def fail_over(cluster, scheme, turn):
    old = cluster.until_healthy()
    members = [*cluster.followers(), old]
    url = f"{scheme}://" + ",".join(member.address for member in members)
    with lockkit.connect(url) as client, lockkit.connect(url) as other:
        names = Names(client, other, turn)
        try:
            stopped = SYSTEM.now()
            old.pause()
            cluster.until_healthy()
            until(lambda: SYSTEM.now() - stopped > TTL + 1.0, "its leases are over, as it sees it", 60)
            old.resume()
            resumed = SYSTEM.now()
            until(lambda: SYSTEM.now() - resumed > AFTERWARDS, "it has looked at its leases", 60)
            assert names.overlaps() == {}, "S2, S3: two hold one lock"
            assert "absent" not in [lease.lost_because for lease in names.leases]
        finally:
            names.end()
