"""Redis Cluster: each name where its slot is, while slots move and nodes die."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from itertools import islice

import pytest

import lockkit
from lockkit.errors import BackendUnavailable, ConfigError, Drained
from lockkit.protocol.effects import Orphan
from lockkit.store.spi import RELEASED, Claim, Granted, OpenOptions, Queued, Refused, Terms, Unknown
from lockkit.testing.processes import PATIENCE, until
from lockkit.values.names import new_token
from lockkit_redis.backend import open_store
from lockkit_redis.keys import Keys
from support.servers.redis_groups import RedisCluster
from support.servers.started import started

cluster = started(RedisCluster)


@pytest.fixture
def connect(cluster, request):
    clients = []

    def make(**settings):
        clients.append(lockkit.connect(cluster.url(), namespace=request.node.name[5:60], **settings))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def node_of(cluster, client, name):
    return cluster.node_of(Keys.of(client.namespace, name).queue)


def slot_of(cluster, client, name):
    return cluster.nodes[0].cli("CLUSTER", "KEYSLOT", Keys.of(client.namespace, name).queue)


def names_on(cluster, client, node):
    return (f"n{at}" for at in range(1000) if node_of(cluster, client, f"n{at}") is node)


def test_names_of_all_nodes_are_held_renewed_listed_and_released(cluster, connect):
    client, other = connect(), connect()
    leases = [client.lock(f"n{at}", ttl=2.0).acquire() for at in range(24)]
    assert len({node_of(cluster, client, lease.name).port for lease in leases}) == 3

    renewed = client.stats()["renewals"]
    until(lambda: client.stats()["renewals"] >= renewed + 4 * 24, "each is renewed for longer than a ttl")
    assert all(lease.valid() for lease in leases)
    assert other.lock("n7").try_acquire() is None
    assert other.names() == other.names(deep=True) == sorted(lease.name for lease in leases)
    assert {lease.release().outcome for lease in leases} == {"RELEASED"}
    assert other.names(deep=True) == []


def test_a_waiter_is_woken_whatever_node_its_lock_is_on(cluster, connect):
    """By the subscription: the client of the waiter sends no heartbeat for it."""
    client, other = connect(), connect()
    store = other.driver().backend
    for node in cluster.nodes:
        name = next(names_on(cluster, client, node))
        lease = client.lock(name).acquire()
        waiting, woken = Claim(new_token(), Terms(name)), threading.Event()
        watch = store.watch(name, store.acquire(waiting, True, 5.0).blockers, woken.set, waiting)
        until(lambda: store._wakes._standing, "the subscription stands")
        lease.release()
        assert woken.wait(PATIENCE)
        assert isinstance(store.acquire(waiting, False, 5.0), Granted)
        watch.close()
        store.release(waiting, 5.0)


def test_a_slot_that_has_moved_is_followed(cluster, connect):
    """The move of the slot loses its keys."""
    client = connect()
    here, there, _ = cluster.nodes
    name = next(names_on(cluster, client, here))
    before = client.lock(name).acquire()
    fence = before.fence
    before.release()
    slot = slot_of(cluster, client, name)
    for key in here.cli("CLUSTER", "GETKEYSINSLOT", slot, 10):
        here.cli("DEL", key)
    cluster.move(slot, here, there)
    try:
        with client.lock(name).acquire(timeout=10) as lease:
            assert lease.fence > fence
            assert there.cli("EXISTS", Keys.of(client.namespace, name).queue)
    finally:
        cluster.move(slot, there, here)


def test_a_slot_that_moves_between_two_calls_costs_none_of_them_a_refusal(cluster):
    """Every call is made once, straight at the store: nobody asks again."""
    here, there, _ = cluster.nodes
    with closing(open_store(cluster.url(), OpenOptions(namespace="moving"))) as store:
        name = next(
            f"n{at}" for at in range(1000) if cluster.node_of(Keys.of("moving", f"n{at}").queue) is here
        )
        slot = here.cli("CLUSTER", "KEYSLOT", Keys.of("moving", name).queue)
        held, waits = Claim(new_token(), Terms(name)), Claim(new_token(), Terms(name))
        fence = store.acquire(held, True, 2.0).fence
        try:
            cluster.move(slot, here, there)
            assert isinstance(store.acquire(waits, True, 2.0), Queued)
            cluster.move(slot, there, here)
            assert [each.state for each in store.renew([(held, fence), (waits, None)], 2.0)] == [
                "HELD",
                "WAITING",
            ]
            cluster.move(slot, here, there)
            assert store.inspect(name, 2.0).holders[0].fence == fence
            cluster.move(slot, there, here)
            assert store.extend(held, fence, 60.0, 2.0).state == "HELD"
            cluster.move(slot, here, there)
            assert store.release(held, 2.0) == RELEASED
            cluster.move(slot, there, here)
            assert store.emergency_release(waits, 2.0) == RELEASED
        finally:
            if cluster.node_of(Keys.of("moving", name).queue) is there:
                cluster.move(slot, there, here)


def test_what_is_one_key_is_read_and_written_while_its_slot_is_on_its_way(cluster):
    """The node that has the slot names the one to ask."""
    here, there, _ = cluster.nodes
    with closing(open_store(cluster.url(), OpenOptions(namespace="asked"))) as store:
        name = next(
            f"n{at}" for at in range(1000) if cluster.node_of(Keys.of("asked", f"n{at}").queue) is here
        )
        key = Keys.of("asked", name).record
        with cluster.on_its_way(here.cli("CLUSTER", "KEYSLOT", key), here, there):
            assert store.record(name, 2.0) is None
            assert store.put_record(name, {"a": 1}, 0, 2.0).version == 1
            assert store.record(name, 2.0).value == {"a": 1}
            with there.connect() as client:
                client.execute_command("ASKING")
                assert client.execute_command("DEL", key) == 1


def test_while_a_slot_is_on_its_way_its_locks_are_refused_and_afterwards_they_are_there(cluster, connect):
    """A script of several keys runs on neither side of a migration (ASK, TRYAGAIN)."""
    client = connect()
    name = next(names_on(cluster, client, cluster.nodes[0]))
    source, target = cluster.nodes[0], cluster.nodes[1]
    slot = slot_of(cluster, client, name)
    client.lock("warm").acquire().release()
    with (
        cluster.on_its_way(slot, source, target),
        pytest.raises(lockkit.BackendUnavailable, match="moving a slot"),
    ):
        client.lock(name).acquire(timeout=1)

    assert client.inspect(name).claims == ()
    assert client.lock(name).acquire(timeout=5).release().outcome == "RELEASED"


def test_the_death_of_a_node_ends_only_what_is_on_it():
    with ExitStack() as stack:
        cluster = stack.enter_context(RedisCluster(cluster_require_full_coverage="no"))
        with lockkit.connect(cluster.url()) as client:
            dead, living = cluster.nodes[2], cluster.nodes[0]
            lost = client.lock(next(names_on(cluster, client, dead)), ttl=2.5).acquire()
            kept = client.lock(next(names_on(cluster, client, living)), ttl=2.5).acquire()
            dead.kill()

            assert lost.lost.wait(PATIENCE)
            assert not lost.valid()
            renewed = client.stats()["renewals"]
            until(lambda: client.stats()["renewals"] >= renewed + 4, "it is renewed for longer than a ttl")
            assert kept.valid()
            began = time.monotonic()
            with pytest.raises(lockkit.BackendError):
                client.lock(lost.name).acquire(timeout=1)
            assert time.monotonic() - began < 10  # and not for ever; the machine may be busy
            assert kept.release().outcome == "RELEASED"


def test_a_cluster_that_wants_all_its_slots_is_down_with_one_node_and_the_error_says_so():
    with RedisCluster() as cluster, lockkit.connect(cluster.url()) as client:
        dead, living = cluster.nodes[2], cluster.nodes[0]
        name = next(names_on(cluster, client, living))
        dead.kill()
        until(lambda: b"cluster_state:fail" in living.cli("CLUSTER", "INFO"), "it is down", 30.0)

        with pytest.raises(lockkit.BackendUnavailable, match="cluster-require-full-coverage"):
            client.lock(name).acquire(timeout=1)


def test_a_database_of_a_cluster_is_refused():
    with pytest.raises(lockkit.ConfigError, match="has no databases"):
        lockkit.connect("redis+cluster://localhost:7000/1").lock("a").acquire()


def test_claims_given_up_on_a_silent_node_do_not_delay_those_on_others(cluster, connect):
    client = connect()
    silent, *healthy = cluster.nodes
    names = {node: list(islice(names_on(cluster, client, node), 12)) for node in cluster.nodes}
    client.names()
    driver = client.driver()
    tries, removed = [], threading.Event()
    real = driver.backend.release
    given_up = {name for node in healthy for name in names[node]}

    def release(claim, budget, **more):
        tries.append((claim.terms.name, budget))
        answer = real(claim, budget, **more)
        given_up.discard(claim.terms.name)
        if not given_up:
            removed.set()
        return answer

    driver.backend.release = release
    claims = [Claim(new_token(), Terms(name)) for node in cluster.nodes for name in names[node]]
    assert all(isinstance(driver.backend.acquire(claim, True, 5.0), Granted) for claim in claims)
    with ExitStack() as stack:
        for node in healthy:  # they go on whatever they think of the silent one
            node.cli("CONFIG", "SET", "cluster-require-full-coverage", "no")
            stack.callback(node.cli, "CONFIG", "SET", "cluster-require-full-coverage", "yes")
        silent.pause()
        stack.callback(silent.resume)
        for claim in claims:  # those of the silent node first
            driver.orphans.add(Orphan(claim, abandon=False, how="released"))
        assert removed.wait(30)
        first = {}
        for name, budget in tries:
            first.setdefault(name, budget)
        assert max(first[name] for name in names[silent]) < 0.5
        assert sum(budget > 0.5 for _, budget in tries) <= 6
    until(lambda: not len(driver.orphans), "all are removed")
    assert not any(client.inspect(name).claims for node in cluster.nodes for name in names[node])


# -- drain


def marks(cluster, client):
    """The marks of a drain that are stored, and the key that is there while they are written."""
    pattern = f"lockkit:{client.namespace}:*drain*"
    return [key for node in cluster.nodes for key in node.cli("KEYS", pattern)]


def test_a_drain_marks_every_slot_and_its_end_leaves_nothing(cluster, connect):
    client, other = connect(), connect()
    lease = client.lock("held").acquire()
    other.drain("new kernel")
    assert len(marks(cluster, client)) == 16384 + 1
    for node in cluster.nodes:
        with pytest.raises(Drained, match="new kernel"):
            client.lock(next(names_on(cluster, client, node))).try_acquire()
    lease.confirm()
    assert lease.release().released
    assert other.undrain().reason == "new kernel"
    assert marks(cluster, client) == []
    for node in cluster.nodes:
        client.lock(next(names_on(cluster, client, node))).acquire(timeout=5).release()


def test_a_mark_moves_with_its_slot(cluster, connect):
    client = connect()
    here, there, _ = cluster.nodes
    name = next(names_on(cluster, client, here))
    slot = slot_of(cluster, client, name)
    client.drain()
    cluster.move(slot, here, there)
    try:
        with pytest.raises(Drained):
            client.lock(name).acquire(timeout=5)
        assert client.undrain() is not None
        client.lock(name).acquire(timeout=5).release()
    finally:
        cluster.move(slot, there, here)
    assert marks(cluster, client) == []


@pytest.fixture
def cut(monkeypatch):
    """Have a client's writes to the slots fail behind the first three rows."""

    def make(client, error=Unknown):
        store = client.driver().backend.store
        row, count = store.row, []

        def failing(*args, **more):
            count.append(1)
            if len(count) > 3:
                raise error(BackendUnavailable("cut"), retry=False)
            return row(*args, **more)

        monkeypatch.setattr(store, "row", failing)

    yield make
    monkeypatch.undo()


@pytest.mark.parametrize("error", [Unknown, Refused])
def test_a_drain_that_fails_half_way_says_so_until_one_is_repeated(cluster, connect, cut, monkeypatch, error):
    client, other = connect(), connect()
    cut(client, error)
    with pytest.raises(BackendUnavailable, match="cut") as caught:
        client.drain("half")
    assert "may be drained" in caught.value.hint
    assert 1 < len(marks(cluster, client)) < 16384
    assert other.drained().partial
    assert other.drained().reason == "half"
    whole = other.drain("whole")
    assert other.drained() == whole
    assert not whole.partial
    assert len(marks(cluster, client)) == 16384 + 1
    monkeypatch.undo()
    assert client.undrain() == whole
    assert marks(cluster, client) == []


@pytest.mark.parametrize("error", [Unknown, Refused])
def test_an_undrain_that_fails_half_way_says_so_until_it_is_repeated(cluster, connect, cut, error):
    client, other = connect(), connect()
    made = other.drain("kernel")
    cut(client, error)
    with pytest.raises(BackendUnavailable, match="cut") as caught:
        client.undrain()
    assert "may be drained still" in caught.value.hint
    assert other.drained() == made._replace(partial=True)
    assert other.undrain().reason == "kernel"
    assert marks(cluster, client) == []


def test_a_wait_for_holders_fails_when_an_undrain_has_failed_half_way(cluster, connect, cut):
    client = connect()
    lease = client.lock("held").acquire()
    command = [sys.executable, "-m", "lockkit"]
    options = ["--url", cluster.url(), "--namespace", client.namespace]
    drain = subprocess.Popen([*command, "drain", "--wait", *options], stderr=subprocess.PIPE, text=True)
    try:
        assert any(line.startswith("waiting: 1 claim") for line in iter(drain.stderr.readline, ""))
        cut(client)
        with pytest.raises(BackendUnavailable):
            client.undrain()
        told = drain.communicate(timeout=100)[1]
    finally:
        drain.kill()
        drain.wait()
    assert drain.returncode == 1
    assert "only partly drained, because an undrain has begun" in told
    shown = subprocess.run(
        [*command, "status", *options], capture_output=True, text=True, timeout=100, check=True
    )
    assert "has been partly drained by" in shown.stdout
    assert "to finish it: lockkit drain --url" in shown.stdout
    lease.release()


def test_who_may_not_change_the_mark_yet_is_told_for_how_long(cluster, connect):
    client = connect()
    key = f"lockkit:{client.namespace}:draining"
    cluster.node_of(key).cli("SET", key, "dead", "PX", "20000")
    with pytest.raises(BackendUnavailable, match=r"if it was cut off in (20|1\d(\.\d+)?) s"):
        client.drain()
    assert client.drained() is None
    cluster.node_of(key).cli("DEL", key)
    client.drain()
    client.undrain()


def test_drains_and_their_ends_at_the_same_time_leave_one_state_everywhere(cluster, connect):
    # On a busy machine three drains of 16384 slots at once take longer than other requests may.
    clients = [connect(request_timeout=30) for _ in range(3)]

    def work(client, number):
        for _ in range(3):
            try:
                client.drain(f"by {number}")
                client.undrain()
            except (BackendUnavailable, ConfigError):  # another client is faster
                pass

    threads = [threading.Thread(target=work, args=each) for each in zip(clients, range(3), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = marks(cluster, clients[0])
    assert len(found) in (0, 16384 + 1)
    if found:
        clients[0].undrain()
    assert marks(cluster, clients[0]) == []
