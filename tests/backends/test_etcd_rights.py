"""The smallest rights with which the etcd store works, as in the docs, and the errors with fewer rights."""

from __future__ import annotations

import contextlib
import re
import threading
from pathlib import Path

import pytest

import lockkit
from lockkit.errors import PermissionDenied
from lockkit.store.spi import Busy, Granted, OpenOptions, Queued, Refused, Removal
from lockkit.testing.claims import BUDGET, claim, queue, take
from lockkit.testing.processes import PATIENCE, installed
from lockkit.values.names import claim_id
from lockkit_etcd.backend import open_store
from support.observers import command_line
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import EtcdUser
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")

LOCKER = EtcdUser("locker", "secret", {"lockkit/default/": "READWRITE"})
WATCHER = EtcdUser("watcher", "secret", {"lockkit/default/": "READ"})
PAGE = Path(__file__).parents[2] / "docs/ops/etcd-role.md"


server = started(EtcdServer, users=[LOCKER, WATCHER])


@pytest.fixture(autouse=True)
def empty(server):
    server.wipe()


@pytest.fixture
def url(server):
    return server.url("locker", "secret")


@pytest.fixture
def observer_url(server):
    return server.url("watcher", "secret")


def keys(server):
    return sorted(
        kv["key"] for kv in server.call("kv/range", {"key": b"\0", "range_end": b"\0"}).get("kvs", [])
    )


def everything(url):
    """All that a store does."""
    with contextlib.closing(open_store(url, OpenOptions())) as store:
        one, other, third = claim(ttl=20, min_hold=1, lock_delay=1), claim(), claim()
        granted = store.acquire(one, True, BUDGET)
        assert isinstance(granted, Granted)
        queued = store.acquire(other, True, BUDGET)
        assert isinstance(queued, Queued)
        assert isinstance(store.acquire(third._replace(wait=False), True, BUDGET), Busy)
        woken = threading.Event()
        store.watch("a", queued.blockers, woken.set, other)
        states = [each.state for each in store.renew([(one, granted.fence), (other, None)], BUDGET)]
        assert states == ["HELD", "WAITING"]
        assert isinstance(store.acquire(one, False, BUDGET), Granted)
        assert store.extend(one, granted.fence, 30, BUDGET).state == "HELD"
        assert store.annotate("a", claim_id(one.token), {"x": 1}, BUDGET)
        assert store.resize("a", 1, BUDGET) == 2
        assert store.put_record("a", {"x": 1}, 0 if store.record("a", BUDGET) is None else 1, BUDGET)
        assert store.names("", BUDGET) == ["a"]
        assert store.evict("a", claim_id(one.token), BUDGET).outcome == "MARKED"
        assert store.renew([(one, granted.fence)], BUDGET)[0].state == "LOST"
        store.release(one, BUDGET, how="ungraceful")
        store.evict("a", claim_id(one.token), BUDGET, now=True)
        assert isinstance(store.acquire(other, False, BUDGET), Granted)
        assert woken.wait(PATIENCE)
        store.abandon(other, BUDGET)
        store.emergency_release(third, BUDGET)
        one, _ = take(store)
        many = [Removal(each, abandon=False, how="unused") for each in (one, queue(store))]
        assert store.extras.remove_many(many, BUDGET) == [None, None]
        assert {each.severity for each in store.check(BUDGET)} == {"ok"}


def looking(url):
    """All that an observer's store does."""
    with contextlib.closing(open_store(url, OpenOptions())) as store:
        assert [each.state for each in store.inspect("a", BUDGET).claims] == ["HELD"]
        assert store.names("", BUDGET) == ["a"]
        assert store.record("a", BUDGET) is None
        return {each.check: each for each in store.check(BUDGET)}


def test_with_the_rights_of_those_who_lock_everything_works(url):
    everything(url)


@pytest.mark.parametrize("right", ["READ", "WRITE"])
def test_with_half_of_them_it_is_denied_and_the_page_is_named(server, right):
    half = f"half-{right.lower()}"
    server._gateway  # noqa: B018 - the server has users
    server.call("auth/role/add", {"name": half})
    permission = {"permType": right, "key": b"lockkit/default/", "range_end": b"lockkit/default0"}
    server.call("auth/role/grant", {"name": half, "perm": permission})
    server.call("auth/user/add", {"name": half, "password": "secret"})
    server.call("auth/user/grant", {"user": half, "role": half})
    with pytest.raises(Refused, match="lockkit docs etcd-role") as denied:
        everything(server.url(half, "secret"))
    assert isinstance(denied.value.error, PermissionDenied)
    missing = {"READ": "write", "WRITE": "read"}[right]
    assert f"no right to {missing} lockkit/default/" in denied.value.error.message
    assert not denied.value.retry
    assert "secret" not in str(denied.value)


def test_who_locks_may_touch_nothing_else(url, server):
    before = keys(server)
    with pytest.raises(Refused) as denied:
        open_store(url, OpenOptions(namespace="other"))
    assert isinstance(denied.value.error, PermissionDenied)
    assert keys(server) == before


@pytest.mark.skipif(not installed("etcdctl"), reason="make servers")
def test_what_is_missing_for_another_namespace_is_named_with_the_line_that_gives_it(url, server):
    with pytest.raises(Refused) as denied:
        open_store(url, OpenOptions(namespace="default2"))
    assert "no right to read lockkit/default2/" in denied.value.error.message
    line = re.search(r"etcdctl (role grant-permission .*?);", denied.value.error.hint)[1]
    server.ctl(*line.replace("ROLE", "locker").split())
    try:
        open_store(url, OpenOptions(namespace="default2")).close()
    finally:
        server.ctl("role", "revoke-permission", "locker", "--prefix=true", "lockkit/default2/")


@pytest.fixture
def held(url):
    with lockkit.connect(url) as client:
        lease = client.lock("a").acquire(timeout=0)
        yield lease
        lease.release()


def test_with_the_observers_rights_one_can_look(held, observer_url, server):
    server.call("kv/deleterange", {"key": b"lockkit/default/r/", "range_end": b"lockkit/default/r0"})
    found = looking(observer_url)["rights"]
    assert found.severity == "error"
    assert "no right to write lockkit/default/" in found.message
    assert "readwrite lockkit/default/" in found.hint


def test_an_observer_sees_the_status_and_cannot_lock(held, observer_url, server, tmp_path):
    before = keys(server)
    for line in (["status"], ["status", "a"], ["explain", "a"]):
        done = command_line(observer_url, tmp_path, *line)
        assert (done.returncode, done.stderr) == (0, "")
        assert "a" in done.stdout
        assert "secret" not in done.stdout

    with lockkit.connect(observer_url) as client, pytest.raises(PermissionDenied):
        client.lock("b").acquire(timeout=1)
    assert keys(server) == before


@pytest.mark.skipif(not installed("etcdctl"), reason="make servers")
@pytest.mark.parametrize("heading", ["The user that takes locks", "The user that only looks"])
def test_the_lines_of_the_page_give_exactly_these_rights(heading, server):
    section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\$ etcdctl (.*)$", section, re.MULTILINE)
    role = next(line.split()[-1] for line in lines if line.startswith("role add"))
    user = next(line.split()[2].partition(":")[0] for line in lines if line.startswith("user add"))
    server.ctl("role", "delete", role)
    server.ctl("user", "delete", user)
    for line in lines:
        server.ctl(*line.split())
    expected = LOCKER if user == "locker" else WATCHER
    ((prefix, right),) = expected.rights.items()
    said = server.call("auth/role/get", {"role": role})["perm"]
    assert len(said) == 1
    assert said[0].get("permType", "READ") == right
    shown = server.ctl("role", "get", role)
    assert f"prefix {prefix}" in shown
    if user == "locker":
        everything(server.url(user, "secret"))
