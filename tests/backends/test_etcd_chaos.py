"""Three etcd members under all faults at once: links held, slowed, cut; members paused, killed; evictions.

Whatever happens, never do more believe that they hold than may, fences rise, and nothing is left in the end.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter

import pytest

import lockkit
from lockkit.testing.processes import ServerFailed, installed, until
from support.servers.etcd_groups import EtcdCluster
from support.servers.proxy import Proxy

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")

TTL, SECONDS, CLIENTS = 2.0, 20.0, 6
ROOM = {"mutex-0": 1, "mutex-1": 1, "seats": 2}


class Witness:
    """The workers that hold the lock, as they say themselves."""

    def __init__(self):
        self.mutex = threading.Lock()
        self.inside = {name: [] for name in ROOM}
        self.fences = dict.fromkeys(ROOM, 0)
        self.wrong = []
        self.seen = Counter()

    @contextlib.contextmanager
    def watching(self, name, lease):
        with self.mutex:
            here = [other for other in self.inside[name] if other.valid()]
            if lease.valid() and len(here) >= ROOM[name]:
                self.wrong.append(f"{name}: {lease.fence} beside {[other.fence for other in here]}")
            if ROOM[name] == 1 and lease.fence <= self.fences[name]:
                self.wrong.append(f"{name}: fence {lease.fence} after {self.fences[name]}")
            self.fences[name] = max(self.fences[name], lease.fence)
            self.inside[name].append(lease)
            self.seen["grants"] += 1
        try:
            yield
        finally:
            with self.mutex:
                self.inside[name].remove(lease)


def work(client, witness, stop, chance):
    """Take and release, again and again."""
    while not stop.is_set():
        name = chance.choice([*ROOM])
        room = ROOM[name]
        lock = client.lock(name, ttl=TTL) if room == 1 else client.semaphore(name, room, ttl=TTL)
        try:
            lease = lock.try_acquire() if chance.random() < 0.3 else lock.acquire(timeout=5 * chance.random())
        except lockkit.LockkitError as error:
            witness.seen[type(error).__name__] += 1
            continue
        if lease is None:
            continue
        with witness.watching(name, lease):
            end = time.monotonic() + 0.2 * chance.random()
            while time.monotonic() < end and lease.valid():
                time.sleep(0.005)
        witness.seen[lease.release().outcome] += 1


def trouble(proxies, cluster, chance):
    """Something goes wrong for a moment."""
    for proxy in chance.sample(proxies, chance.randrange(1, len(proxies))):
        what = chance.choice(["hold", "deaf", "drop", "cut", "slow"])
        if what == "slow":
            proxy.delay = 0.2 * chance.random()
        elif what == "deaf":
            proxy.hold(to_server=False)
        else:
            getattr(proxy, what)()
    member = chance.choice(cluster.members)
    stands_still = chance.random() < 0.4
    if stands_still:
        member.pause()
    time.sleep(2.5 * chance.random())
    if stands_still:
        member.resume()
    elif chance.random() < 0.2:
        member.kill()
        member.start(wait=False)
    for proxy in proxies:
        proxy.delay = 0.0
        proxy.heal()
    with contextlib.suppress(ServerFailed):
        cluster.until_healthy(20.0)


def evict(client, chance):
    """An operator forces somebody out."""
    with contextlib.suppress(lockkit.LockkitError):
        name = chance.choice([*ROOM])
        claims = client.inspect(name).claims
        if claims:
            client.evict(name, chance.choice(claims).claim_id, reason="chaos")


@pytest.mark.parametrize("seed", [1, 2])
def test_never_do_more_believe_that_they_hold_than_may(seed):
    chance, witness, stop = random.Random(seed), Witness(), threading.Event()
    with EtcdCluster() as cluster, contextlib.ExitStack() as stack:
        proxies, clients = [], []
        for at in range(CLIENTS):
            # Half of them know one member only, so that they feel what befalls it.
            known = chance.sample(cluster.members, 1 if at % 2 else 3)
            laid = [stack.enter_context(Proxy((each.host, each.port))) for each in known]
            clients.append(
                stack.enter_context(lockkit.connect(f"etcd://{','.join(each.address for each in laid)}"))
            )
            proxies += laid
        operator = stack.enter_context(lockkit.connect(cluster.url()))
        threads = [
            threading.Thread(target=work, args=(client, witness, stop, random.Random(100 * seed + at)))
            for at, client in enumerate(clients)
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            trouble(proxies, cluster, chance)
            evict(operator, chance)
            witness.seen["troubles"] += 1
        stop.set()
        for thread in threads:
            thread.join(30.0)
        assert not any(thread.is_alive() for thread in threads)
        until(lambda: operator.names() == [], "nothing is left", 2 * TTL + 5.0)
    assert witness.wrong == []
    assert witness.seen["grants"] > 50, witness.seen
    assert witness.seen["troubles"] > 5, witness.seen
