"""docs/backends/redis.md, docs/ops/redis-acl.md, docs/layout.md on Redis: their claims on real servers."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

import lockkit
from lockkit.store.spi import RELEASED, Claim, Refused

redis = pytest.importorskip("redis")

import lockkit_redis  # noqa: E402
from lockkit.testing.processes import until  # noqa: E402
from lockkit.testing.server_clock import ServerClock  # noqa: E402
from lockkit.values.names import new_token  # noqa: E402
from lockkit_redis import address, health, keys, rights  # noqa: E402
from support.pages import DOCS, section, table  # noqa: E402
from support.servers.redis import RedisServer  # noqa: E402
from support.servers.redis_groups import RedisCluster  # noqa: E402
from support.servers.started import started  # noqa: E402

pytestmark = pytest.mark.skipif(
    not (shutil.which("redis-server") or shutil.which("valkey-server")), reason="make servers"
)

PAGE = (DOCS / "backends/redis.md").read_text()
RIGHTS = (DOCS / "ops/redis-acl.md").read_text()
LAYOUT = (DOCS / "layout.md").read_text().partition("\n## Redis and Valkey\n")[2].partition("\n## ")[0]
USERS = {
    line.split()[1]: line.removeprefix("user ") for line in re.findall(r"^user .*$", RIGHTS, re.MULTILINE)
}
ADDED = re.findall(r"^\| `(\+[^`]+)` \|", RIGHTS, re.MULTILINE)
KEY = "lockkit:default:{backup}:"


def user(name, *commands):
    """A line of the page, with what the page says to add for those commands."""
    added = [each.replace("\\|", "|") for each in ADDED if any(one in each for one in commands)]
    assert len(added) == len(commands)
    return " ".join([USERS[name], *added])


server = started(RedisServer)


@pytest.fixture(autouse=True)
def empty(request):
    if "server" in request.fixturenames:
        request.getfixturevalue("server").cli("FLUSHALL")


@pytest.fixture
def client(server):
    with lockkit.connect(
        server.url(), request_timeout=20
    ) as client:  # a busy machine may stand still for seconds
        yield client


@pytest.fixture
def other(server):
    with lockkit.connect(server.url()) as client:
        yield client


# -- URLs


def test_every_url_of_the_page_is_one_and_no_scheme_is_missing():
    urls = re.findall(r"`([a-z+]+://[^`]*)`", section(PAGE, "## URLs"))
    (spec,) = lockkit_redis.lockkit_backends()

    for url in urls:
        address.parse(url)

    assert {url.partition(":")[0] for url in urls} == set(spec.schemes)


def test_every_option_has_a_row_and_no_other():
    rows = table(section(PAGE, "## URLs"))
    named = {name for row in rows for name in re.findall(r"^`(\w+)`$|`(\w+)`(?=,|$)", row[0])}
    documented = {one or two for one, two in named}

    assert documented == {*address._COMMON, *(name for each in address._OPTIONS.values() for name in each)}


def test_an_option_that_does_not_exist_is_refused_with_those_there_are():
    with pytest.raises(lockkit.ConfigError) as refused:
        address.parse("redis://host?min_replica=1")

    assert "min_replicas" in refused.value.hint


# -- doctor


def test_every_finding_of_the_doctor_has_a_row_and_no_other():
    source = "".join(Path(module.__file__).read_text() for module in (health, rights))
    found = set(re.findall(r'Finding\(\s*"(\w+)",\s*"(\w+)"', source))

    rows = {(row[0].strip("`"), row[1]) for row in table(section(PAGE, "## What doctor says"))[1:]}

    assert rows == found


def test_the_doctor_sees_what_the_table_says(server, client):
    def said():
        return {(found.check, found.severity) for found in client.check()}

    assert {
        ("server", "ok"),
        ("failover", "ok"),
        ("memory", "ok"),
        ("persistence", "warning"),
        ("rights", "ok"),
    } <= said()
    try:
        server.cli("CONFIG", "SET", "maxmemory", "1gb")
        server.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        server.cli("CONFIG", "SET", "appendonly", "yes")
        assert {("memory", "error"), ("persistence", "ok")} <= said()
    finally:
        server.cli("CONFIG", "SET", "appendonly", "no")
        server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
        server.cli("CONFIG", "SET", "maxmemory", "0")


# -- the layout


def test_the_layout_names_every_key_and_every_field_of_a_claim(server, client, other):
    with client.lock("backup", max_hold=60).acquire() as lease:
        client.annotate("backup", lease.claim_id, {"please": "release"})
        client.evict("backup", lease.claim_id, reason="a test")
        stored = json.loads(server.cli("HGET", f"{KEY}c", lease.token))
        there = {key.decode() for key in server.cli("KEYS", "*")}
    rows = [name for row in table(section(LAYOUT, "")) for name in re.findall(r"`([^`]+)`", row[0])]
    documented = {name.replace("<ns>", "default").replace("<name>", "backup") for name in rows}

    assert there <= documented
    assert {name[-1] for name in documented if name.startswith("lockkit:default:{backup}")} == {
        each[-1] for each in keys.Keys.of("default", "backup")
    }
    assert {keys.index("default"), keys.mark("default"), keys.marking("default")} <= documented
    fields = {name for name in rows if not name.startswith("lockkit:")}
    assert fields == {*stored, "replayed"}


ONE_LINERS = re.findall(r"^\$ (redis-cli .*)$", LAYOUT, re.MULTILINE)


@pytest.mark.parametrize("line", ONE_LINERS, ids=lambda line: " ".join(line.split()[1:3])[:24])
def test_a_one_liner_of_the_layout_works_and_changes_nothing(server, client, other, line):
    program = shutil.which("redis-cli") or shutil.which("valkey-cli")
    if program is None:
        pytest.skip("make servers")
    changes = lambda: re.search(rb"rdb_changes_since_last_save:(\d+)", server.cli("INFO"))[1]  # noqa: E731
    with client.lock("backup", ttl=60).acquire() as lease:
        waiter = threading.Thread(target=lambda: other.lock("backup").acquire(timeout=30).release())
        waiter.start()
        until(lambda: server.cli("ZCARD", f"{KEY}q") == 2 and server.cli("PUBSUB", "CHANNELS", "*"))
        # The waiter's heartbeat changes its deadline every 2 s, so one quiet try is enough.
        for _ in range(5):
            before = changes()
            done = subprocess.run(
                [program, "-p", str(server.port), *shlex.split(line)[1:]],
                capture_output=True,
                text=True,
                check=True,
            )
            if changes() == before:
                break
        else:
            pytest.fail("it changes something")
        tokens = [token.decode() for token in server.cli("ZRANGE", f"{KEY}q", 0, -1)]
    waiter.join()

    assert done.stdout.strip()
    assert "ERR" not in done.stdout
    assert "NOPERM" not in done.stdout
    assert lease.token in tokens
    assert not [token for token in tokens if token in done.stdout]


def test_the_one_liners_show_who_holds_who_waits_and_the_fence(server, client):
    program = shutil.which("redis-cli") or shutil.which("valkey-cli")
    if program is None:
        pytest.skip("make servers")
    with client.lock("backup").acquire() as lease:
        told = "".join(
            subprocess.run(
                [program, "-p", str(server.port), *shlex.split(line)[1:]],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for line in ONE_LINERS
        )

    assert len(ONE_LINERS) == 7
    assert "backup" in told
    assert '"state":"HELD"' in told
    assert str(lease.fence) in told
    assert '"pid":' in told


# -- rights


@pytest.fixture(scope="module")
def guarded():
    users = [user("locker"), user("watcher"), "admin on >admin ~* &* +@all", "default off"]
    with RedisServer(user=users, login=("admin", "admin")) as server:
        yield server


def test_who_locks_may_do_everything_that_locks_do(guarded):
    url = guarded.url(user="locker", password="secret")
    with lockkit.connect(url) as client, lockkit.connect(url) as other:
        lease = client.semaphore("seats", 1).acquire()
        got = []
        waiter = threading.Thread(
            target=lambda: got.append(other.semaphore("seats", 1).acquire(timeout=20).release().outcome)
        )
        waiter.start()
        until(lambda: client.inspect("seats").waiters)
        lease.confirm()
        lease.extend(60)
        assert client.annotate("seats", lease.claim_id, {"a": 1})
        client.resize("seats", 1)
        assert lease.release().outcome == "RELEASED"
        waiter.join()
        assert got == ["RELEASED"]
        forced = client.lock("forced").acquire()
        assert client.names() == ["forced"]
        assert client.evict("forced", forced.claim_id, reason="a test", now=True).outcome == "REMOVED"
        assert client.record("seats") is None
        client.put_record("seats", {"last": "me"}, 0)
        with contextlib.suppress(lockkit.LeaseLost):
            forced.confirm()


def test_who_locks_sees_no_other_namespace_and_no_other_key(guarded):
    url = guarded.url(user="locker", password="secret")
    with lockkit.connect(url, namespace="theirs") as client, pytest.raises(lockkit.PermissionDenied):
        client.lock("a").try_acquire()


def test_who_looks_may_look_and_not_lock(guarded):
    url = guarded.url(user="watcher", password="secret")
    writing = guarded.url(user="locker", password="secret")
    with (
        lockkit.connect(writing) as writer,
        lockkit.connect(url) as observer,
        writer.lock("backup").acquire() as lease,
    ):
        assert observer.names() == ["backup"]
        assert observer.inspect("backup").holders[0].claim_id == lease.claim_id
        assert observer.record("backup") is None
        with pytest.raises(lockkit.PermissionDenied, match=r"(?i)evalsha"):
            observer.lock("other").try_acquire()


def test_what_is_to_be_added_for_a_database_the_doctor_and_a_deep_look_is_enough():
    line = user("locker", "+info", "+select", "+wait", "+scan")
    with RedisServer(user=[line, user("watcher", "+info")]) as server:
        with lockkit.connect(server.url(db=3, user="locker", password="secret")) as client:
            with client.lock("backup").acquire():
                assert client.names(deep=True) == ["backup"]
            assert {found.severity for found in client.check()} <= {"ok", "warning"}
        copied = server.url(db=3, user="locker", password="secret") + "?min_replicas=1"
        with lockkit.connect(copied) as client:
            backend, claim = client.driver().backend, Claim(new_token(), client.lock("other").terms)
            with pytest.raises(Refused) as refused:
                backend.acquire(claim, True, 0.2)
            assert "only 0 of 1 replicas confirmed the lock" in str(refused.value.error)
            assert client.inspect("other").claims == ()
        assert not server.cli("ACL", "LOG")
        with lockkit.connect(server.url(user="watcher", password="secret")) as observer:
            rights = {found.check: found for found in observer.check()}["rights"]
    assert rights.severity == "error"
    assert rights.hint.startswith("observers may look but not lock; ")


def test_what_is_to_be_added_for_sentinels_and_their_login_is_enough():
    with RedisServer(user=[user("locker", "+role")]) as primary:
        watch = f"monitor kit {primary.host} {primary.port} 1"
        with RedisServer(as_sentinel=True, sentinel=[watch], user=[USERS["finder"]]) as sentinel:
            place = f"locker:secret@{sentinel.address}/kit/0"
            url = f"redis+sentinel://{place}?sentinel_user=finder&sentinel_password=secret"
            with lockkit.connect(url) as client, client.lock("a").acquire(timeout=40) as lease:
                assert lease.valid()


def test_what_is_to_be_added_for_a_cluster_is_enough():
    with RedisCluster(user=[user("locker", "slots"), user("watcher", "slots")]) as nodes:
        place = nodes.url().partition("//")[2]
        locker, watcher = (f"redis+cluster://{who}:secret@{place}" for who in ("locker", "watcher"))
        with lockkit.connect(locker) as client, lockkit.connect(watcher) as other:
            leases = [client.lock(f"name/{at}").acquire(timeout=40) for at in range(8)]
            assert len(other.names()) == 8
            assert {lease.release().outcome for lease in leases} == {"RELEASED"}


# -- what it does not promise


def test_a_server_that_forgot_its_locks_lets_the_next_in_with_a_higher_fence():
    with RedisServer() as server, lockkit.connect(server.url()) as client, lockkit.connect(server.url()) as b:
        old = client.lock("job", ttl=3).acquire()
        server.restart(lose_data=True)
        new = b.lock("job").acquire(timeout=40)

        assert new.fence > old.fence
        assert old.lost.wait(40)


@pytest.mark.skipif(not ServerClock.possible(), reason="needs Linux and a C compiler")
def test_a_clock_set_forward_may_let_two_hold_and_the_second_has_the_higher_fence():
    with (
        RedisServer(clock=True) as server,
        lockkit.connect(server.url()) as a,
        lockkit.connect(server.url()) as b,
    ):
        first = a.lock("job", ttl=30).acquire()
        server.clock.step(60)
        second = b.lock("job").try_acquire()

        assert first.valid()
        assert second.fence > first.fence
        with pytest.raises(lockkit.LeaseLost):
            first.confirm()


@pytest.mark.skipif(not ServerClock.possible(), reason="needs Linux and a C compiler")
def test_a_clock_set_back_keeps_no_claim_longer_than_asked_and_fences_rise_by_one():
    with RedisServer(clock=True) as server, lockkit.connect(server.url()) as client:
        lease = client.lock("job", ttl=30).acquire()
        server.clock.step(-3600)
        lease.confirm()
        deadline = client.inspect("job").holders[0].deadline
        assert deadline - server.time() <= 30
        lease.release()

        with client.lock("job").acquire() as next_lease:
            assert next_lease.fence == lease.fence + 1


def test_without_memory_new_claims_are_refused_and_holders_renew_and_release(server, client):
    lock, backend = client.lock("backup"), client.driver().backend
    claim = Claim(new_token(), lock.terms)
    fence = backend.acquire(claim, True, 2.0).fence
    try:
        server.cli("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(lockkit.BackendUnavailable, match="out of memory"):
            client.lock("other").try_acquire()
        (renewal,) = backend.renew([(claim, fence)], 2.0)
        assert renewal.state == "HELD"
        assert backend.release(claim, 2.0) == RELEASED
    finally:
        server.cli("CONFIG", "SET", "maxmemory", "0")


# -- size


def sent(server):
    """How many scripts were asked for: everything that is sent regularly is one."""
    text = server.cli("INFO", "commandstats").decode()
    return sum(int(calls) for calls in re.findall(r"cmdstat_eval(?:sha)?:calls=(\d+)", text))


def used(server):
    """Bytes of the data, without the buffers of connections, which would be a third of the least figure."""
    memory = dict(re.findall(r"^(\w+):(\d+)", server.cli("INFO", "memory").decode(), re.MULTILINE))
    return int(memory["used_memory"]) - int(memory["mem_clients_normal"])


def test_acquire_and_release_are_two_requests(server, client):
    lock = client.lock("backup")
    lock.acquire().release()
    before = sent(server)

    lock.acquire().release()

    assert sent(server) - before == 2


def test_a_hold_is_renewed_three_times_a_ttl(server, client):
    with client.lock("backup", ttl=3).acquire() as lease:
        lease.confirm()  # so that the server knows the script
        before, began = sent(server), time.monotonic()
        time.sleep(4.2)
        renewals, took = sent(server) - before, time.monotonic() - began
        assert 2 <= renewals <= took + 1


def test_all_waiters_of_a_client_for_a_name_are_one_request_in_two_seconds(server, client, other):
    with client.lock("backup", ttl=600).acquire():
        waiters = [
            threading.Thread(target=lambda: other.lock("backup").acquire().release()) for _ in range(5)
        ]
        for waiter in waiters:
            waiter.start()
        until(lambda: server.cli("ZCARD", f"{KEY}q") == 6)
        time.sleep(1.0)
        before, began = sent(server), time.monotonic()
        time.sleep(6.2)
        requests, took = sent(server) - before, time.monotonic() - began
        assert 1 <= requests <= took / 2 + 2  # each for itself they would send five times as many
    for waiter in waiters:
        waiter.join()


def test_memory_of_names_claims_and_what_is_left(server, client):
    for at in range(20):
        client.lock(f"warm/{at}").acquire().release()
    before = used(server)
    leases = [client.lock(f"held/{at}").acquire() for at in range(2000)]
    held = (used(server) - before) / 2000
    for lease in leases:
        lease.release()
    left = (used(server) - before) / 2000
    lock, backend = client.lock("backup"), client.driver().backend
    with lock.acquire():
        before = used(server)
        claims = [Claim(new_token(), lock.terms, True) for _ in range(2000)]
        for claim in claims:
            backend.acquire(claim, True, 2.0)
        waiting = (used(server) - before) / 2000
        for claim in claims:
            backend.release(claim, 2.0)

    stated = [float(number) for number in re.findall(r"\| ([\d.]+) KiB", section(PAGE, "## Size"))]
    assert [held, waiting, left] == pytest.approx([1024 * number for number in stated], rel=0.35)


def test_queue_keys_expire_a_minute_after_the_last_deadline(server, client):
    with client.lock("backup", ttl=30).acquire():
        assert 80_000 < server.cli("PTTL", f"{KEY}q") <= 90_000
    assert 86_000_000 < server.cli("PTTL", f"{KEY}f") <= 86_400_000


def test_a_client_has_one_connection_and_one_more_once_it_has_waited(server, client, other):
    def connections():
        return len(re.findall(r" name=lockkit:[^ :]+:\d+ ", server.cli("CLIENT", "LIST").decode()))

    lease = client.lock("backup").acquire()
    assert connections() == 1
    waiter = threading.Thread(target=lambda: other.lock("backup").acquire().release())
    waiter.start()
    until(lambda: server.cli("PUBSUB", "CHANNELS", "lockkit:default:wake:*"))
    until(lambda: connections() == 3)
    lease.release()
    waiter.join()
