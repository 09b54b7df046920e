"""Claims with foreign contents: any content is shown, blocks like a claim, and stops nothing else."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Mapping
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lockkit
from lockkit.cli import exits
from lockkit.cli.main import run
from lockkit.facts import ClaimInfo, Owner
from lockkit.store.untrusted import DAMAGED, NEWER, claim_of, object_in, owner_of
from lockkit.testing.processes import until
from lockkit.testing.stage import Work
from lockkit.values.names import encode
from support.harnesses.etcd import EtcdHarness
from support.harnesses.redis import RedisHarness
from support.harnesses.sqlite import SqliteHarness
from support.harnesses.zookeeper import ZooKeeperHarness
from support.servers.etcd_gateway import covered
from support.servers.redis import RedisServer

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=8), below, max_size=4),
    max_leaves=12,
)
PARTS = (
    "v", "min_reader", "kind", "owner", "lockkit", "pool", "adopted", "evicted", "acquire", "state",
    "weight", "capacity", "ttl", "since", "renewed", "note", "claim", "fence", "granted", "term",
)  # fmt: skip
OWNERS = st.dictionaries(st.sampled_from(Owner._fields), JSONS, max_size=6)
CLAIMS = st.dictionaries(st.sampled_from(PARTS), JSONS | OWNERS, max_size=8)
GARBAGE = (
    CLAIMS.map(json.dumps).map(str.encode)
    | JSONS.map(json.dumps).map(str.encode)
    | st.binary(max_size=40)
    | st.sampled_from([
        b"{bad", b"[" * 3000, b'{"a":' * 900 + b"1" + b"}" * 900, b'{"pool": {"count": 1e400}}',
        b'{"x": "\\ud800"}', b'{"owner": {"pid": "../x", "started": 1.0}}',
        b'{"owner": {"pid": 1' + b"0" * 30 + b"}}", b"\x00", b"9" * 5000,
        b'{"lockkit": {"progress": [1], "asked": 7, "reason": {}}}', b'{"min_reader": "x"}',
    ])
)  # fmt: skip


@given(JSONS | OWNERS)
def test_an_owner_has_only_what_an_owner_can_have(stored):
    owner = owner_of(json.loads(json.dumps(stored)))
    assert 0 <= owner.pid < 2**31
    assert str(owner)
    for value, default in zip(owner, Owner(), strict=True):
        assert (
            isinstance(value, str if default is None or isinstance(default, str) else int | float | None)
            or value is None
        )


@given(GARBAGE, GARBAGE, JSONS, JSONS, JSONS)
def test_a_claim_has_only_what_a_claim_can_have(owner, note, state, weight, since):
    told = object_in(owner) or {}
    info = claim_of(
        note, name="a", claim_id="0" * 12, state=state, owner=told.get("owner"), fence=weight, position=0,
        kind=told.get("kind", "mutex"), weight=weight, capacity=since, ttl=since, since=since, renewed=state,
        deadline=since, layout=0,
    )  # fmt: skip
    assert isinstance(info, ClaimInfo)
    assert info.state in ("WAITING", "OFFERED", "HELD", "LINGERING")
    str(info.owner), info.reason, info.progress, info.release_requests
    json.dumps(dict(info.note))


def on_sqlite(harness, garbage):
    with sqlite3.connect(harness.path, isolation_level=None) as db:
        text = garbage.decode(errors="replace")
        db.execute("UPDATE entries SET info = ?, note = ?", (text, text))
    db.close()


def on_redis(harness, garbage):
    (look,) = harness._looks.values()
    for key in look.keys("*"):
        if look.type(key) == b"hash":
            for field in look.hkeys(key):
                if field.endswith((b":owner", b":note")) or len(field) == 32:
                    look.hset(key, field, garbage)


def on_etcd(harness, garbage):
    for kv in harness.queue("a").values():
        value = base64.b64encode(garbage).decode()
        harness.call("kv/put", {"key": kv["key"], "value": value, "ignore_lease": True})


def on_zookeeper(harness, garbage):
    parent = f"{harness._root}/q/{encode('a')}"
    for node in harness._children(parent):
        harness._look.set(f"{parent}/{node}", garbage)


STORES = [
    (SqliteHarness, on_sqlite),
    (RedisHarness, on_redis),
    (EtcdHarness, on_etcd),
    (ZooKeeperHarness, on_zookeeper),
]


@pytest.mark.parametrize("kind, damage", STORES, ids=lambda each: getattr(each, "name", ""))
def test_whatever_a_claim_contains_it_is_shown_and_blocks(kind, damage, tmp_path):
    harness = kind(tmp_path)
    try:
        hasty = harness.client(request_timeout=0.3)  # Redis fails at such a claim until the client gives up
        with harness.client() as client, harness.client() as other, hasty:

            @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
            @given(GARBAGE)
            def played(garbage):
                lease = client.lock("a", auto_renew=False).acquire(20.0)
                damage(harness, garbage)
                try:
                    info = other.inspect("a")
                except lockkit.IncompatibleLayout:
                    assert b"min_reader" in garbage
                else:
                    assert len(info.claims) == 1
                    assert info.claims[0].state == "HELD"
                    if object_in(garbage) is None:
                        assert DAMAGED in info.claims[0].evidence
                assert "a" in other.names()
                assert other.lock("b").try_acquire().release().outcome == "RELEASED"
                try:
                    assert hasty.lock("a").try_acquire() is None
                except lockkit.BackendError:
                    pass
                harness.wipe() if hasattr(harness, "wipe") else damage(harness, b"{}")
                lease.simulate_loss()
                lease.release()

            played()
    finally:
        harness.close()


def note_on_sqlite(harness, note):
    with sqlite3.connect(harness.path, isolation_level=None) as db:
        db.execute("UPDATE entries SET note = ? WHERE asked", (note,))
    db.close()


def note_on_redis(harness, note):
    (look,) = harness._looks.values()
    for key in look.keys("*"):
        if look.type(key) == b"hash":
            for field in look.hkeys(key):
                if field.endswith(b":note"):
                    look.hset(key, field, note)


def note_on_etcd(harness, note):
    for kv in harness.call("kv/range", covered("lockkit/default/c/"))["kvs"]:
        value = base64.b64encode(b'{"note": %b}' % note.encode()).decode()
        harness.call("kv/put", {"key": kv["key"], "value": value, "ignore_lease": True})


def note_on_zookeeper(harness, note):
    parent = f"{harness._root}/q/{encode('a')}"
    (node,) = harness._children(parent)
    harness._look.set(f"{parent}/{node}", b'{"asked": true, "note": %b}' % note.encode())


@pytest.mark.parametrize("note", ["{bad", "5", "[1]", '"x"', "[" * 3000])
@pytest.mark.parametrize(
    "kind, damage",
    [
        (SqliteHarness, note_on_sqlite),
        (RedisHarness, note_on_redis),
        (EtcdHarness, note_on_etcd),
        (ZooKeeperHarness, note_on_zookeeper),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_a_note_that_cannot_be_read_costs_no_claim_its_renewal(kind, damage, note, tmp_path):
    harness = kind(tmp_path)
    try:
        with harness.client() as client, harness.client() as other:
            leases = [client.lock(name, auto_renew=False).acquire(20.0) for name in ("a", "b")]
            beats = [(lease._hold.claim, lease.fence) for lease in leases]
            asked = {"x": 1}
            other.annotate("a", leases[0].claim_id, asked)

            def renewed():
                return client.driver().backend.renew(beats, 2.0)

            until(lambda: renewed()[0].requests == asked)
            damage(harness, note)
            until(lambda: renewed()[0].requests != asked)
            first, second = renewed()
            assert second.state == "HELD"
            assert first.state in ("HELD", "UNKNOWN")
            assert first.requests is None or isinstance(first.requests, Mapping)
            for lease in leases:
                lease.simulate_loss()
                lease.release()
    finally:
        harness.close()


@pytest.mark.parametrize(
    "field, wrong",
    [
        ("weight", -5), ("weight", True), ("capacity", 0), ("ttl", "x"), ("ttl", -1), ("ttl", float("inf")),
        ("max_hold", []), ("lock_delay", None),
    ],
)  # fmt: skip
def test_a_field_with_a_wrong_value_blocks_its_lock_on_etcd_and_nothing_else(field, wrong, tmp_path):
    harness = EtcdHarness(tmp_path)
    try:
        with harness.client() as client, harness.client() as other:
            lease = client.lock("a", auto_renew=False).acquire(20.0)
            (kv,) = harness.queue("a").values()
            value = json.dumps({**json.loads(base64.b64decode(kv["value"])), field: wrong})
            on_etcd(harness, value.encode())
            assert DAMAGED in other.inspect("a").claims[0].evidence
            assert refused(other.lock("a"))
            with pytest.raises(lockkit.BackendError):
                lease.extend(60.0)
            assert free(other.lock("b"))
            lease.simulate_loss()
            lease.release()
    finally:
        harness.close()


@pytest.mark.parametrize(
    "garbage", [b"{bad", b'{"weight": 1, "capacity": 2, "state": "HELD"}', b'{"v": 9, "min_reader": 9}']
)
def test_a_damaged_claim_on_redis_costs_no_other_its_renewals_after_the_clock_was_set_back(garbage):
    with RedisServer(clock=True) as server, lockkit.connect(server.url()) as client:
        damaged = client.semaphore("a", 2, auto_renew=False).acquire(20.0)
        look = server.connect()
        (key,) = [each for each in look.keys("*") if look.type(each) == b"hash"]
        (token,) = [each for each in look.hkeys(key) if len(each) == 32]
        lease = client.semaphore("a", 2).acquire(20.0)
        look.hset(key, token, garbage)
        server.clock.step(-100.0)
        lease.confirm()
        lease.release()
        damaged.release()


def off_its_lease(harness, garbage):
    """As plain ``etcdctl put`` does it, again and again."""
    for value in (garbage, *[b"again"] * 20):
        for kv in harness.queue("a").values():
            harness.call("kv/put", {"key": kv["key"], "value": base64.b64encode(value).decode()})


@pytest.mark.parametrize("garbage", [b"{bad", b"5", b'{"weight": -5, "capacity": 1}', b"[" * 3000])
@pytest.mark.parametrize(
    "kind, damage", [*STORES, (EtcdHarness, off_its_lease)], ids=lambda each: getattr(each, "__name__", "")
)
def test_an_eviction_at_once_removes_a_damaged_claim_and_its_holder_hears_of_it(
    kind, damage, garbage, tmp_path
):
    harness = kind(tmp_path)
    try:
        with harness.client() as client, harness.client() as other:
            lease = client.lock("a", ttl=harness.short_ttl).acquire(20.0)
            damage(harness, garbage)
            (claim,) = other.inspect("a").claims
            assert other.evict("a", claim.claim_id, reason="damaged", now=True).outcome == "REMOVED"
            with other.lock("a").acquire(20.0):
                until(lambda: not lease.valid(), "the holder hears of it", 30.0)
            lease.release()
    finally:
        harness.close()


def test_a_claim_whose_holder_cannot_be_told_is_not_removed_on_etcd(tmp_path):
    harness = EtcdHarness(tmp_path)
    try:
        with harness.client() as client, harness.client() as other:
            lease = client.lock("a").acquire(20.0)
            on_etcd(harness, b"{bad")
            harness.server().compact()
            (claim,) = other.inspect("a").claims
            with pytest.raises(lockkit.BackendUnavailable, match="compacted"):
                other.evict("a", claim.claim_id, reason="damaged", now=True)
            assert refused(other.lock("a"))
            lease.release()
    finally:
        harness.close()


@pytest.mark.parametrize("kind, damage", STORES, ids=lambda each: getattr(each, "name", ""))
def test_any_of_passes_over_a_lock_with_a_damaged_claim(kind, damage, tmp_path):
    harness = kind(tmp_path)
    try:
        with harness.client() as client, harness.client() as other:
            lease = client.lock("a", auto_renew=False).acquire(20.0)
            damage(harness, b"{bad")
            either = other.any_of([other.lock("a"), other.lock("b")])
            for take in (either.try_acquire, partial(either.acquire, 20.0)):
                taken = take()
                assert taken.name == "b"
                assert taken.release().outcome == "RELEASED"
            with client.lock("b").acquire(20.0):
                waits = Work(lambda: either.acquire(timeout=20.0).release())
                until(lambda: len(other.inspect("b").claims) == 2, "it waits for the other one")
            assert waits.result().outcome == "RELEASED"
            lease.simulate_loss()
            lease.release()
    finally:
        harness.close()


def weights_on_sqlite(harness, _):
    write(harness, "UPDATE entries SET weight = 'x'")


@pytest.mark.parametrize(
    "kind, damage", [(SqliteHarness, weights_on_sqlite), (RedisHarness, on_redis)], ids=["sqlite", "redis"]
)
def test_a_pool_passes_over_a_member_with_a_damaged_claim(kind, damage, tmp_path):
    harness = kind(tmp_path)
    try:
        with harness.client() as client, harness.client() as other:
            first = client.pool("p", ["x", "y", "z"]).acquire(timeout=20.0)
            damage(harness, b"{bad")
            pool = other.pool("p", ["x", "y", "z"])
            for take in (pool.try_acquire, partial(pool.acquire, timeout=20.0)):
                taken = take(2)
                assert [each.rpartition("/")[2] for each in taken.members] == ["y", "z"]
                taken.release()
            with pytest.raises(lockkit.BackendUnavailable, match="damaged"):
                pool.acquire(3, timeout=20.0)
            for lease in first:
                lease.simulate_loss()
            first.release()
    finally:
        harness.close()


@pytest.mark.parametrize("garbage", [b"{bad", b"5", b'{"weight": -5, "capacity": 1}'])
def test_a_damaged_claim_lapses_on_redis(garbage, tmp_path):
    harness = RedisHarness(tmp_path)
    try:
        with harness.client() as client, harness.client() as other:
            lease = client.lock("a", ttl=harness.short_ttl, auto_renew=False).acquire(20.0)
            damaged_at = other.inspect("a").claims[0].deadline
            on_redis(harness, garbage)
            until(lambda: time.time() > damaged_at)
            assert free(other.lock("a"))
            lease.release()
    finally:
        harness.close()


COLUMNS = (
    "fence", "token", "state", "evicted", "weight", "capacity", "process_bound", "deadline", "silence",
    "ttl", "since", "renewed", "min_hold", "lock_delay", "boot", "epoch", "fifo", "info", "note", "asked",
    "min_reader",
)  # fmt: skip
WRONG = ("'x'", "1.5", "-5", "9223372036854775807", "x'00ff'", "CAST(x'61ff' AS TEXT)", "'../x'", "99")


def write(harness, statement):
    db = sqlite3.connect(harness.path, isolation_level=None)
    db.execute(statement)
    db.close()


def free(lock):
    lease = lock.try_acquire()
    return lease is not None and lease.release().outcome == "RELEASED"


def refused(lock):
    try:
        return not free(lock)
    except (lockkit.BackendError, lockkit.CapacityMismatch):
        return True


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_with_a_wrong_value_blocks_its_lock_and_nothing_else(column, tmp_path):
    harness = SqliteHarness(tmp_path)
    try:
        for wrong in WRONG:
            with harness.client() as client, harness.client() as other:
                lease = client.lock("a", auto_renew=False).acquire(20.0)
                write(harness, f"UPDATE entries SET {column} = {wrong} WHERE name = 'a'")
                over = column == "boot" or (column == "deadline" and wrong in ("1.5", "-5", "99"))
                claims = other.inspect("a").claims
                assert over or [claim.state for claim in claims] in (["HELD"], ["LINGERING"])
                assert over or other.names() == ["a"]
                assert free(other.lock("b"))
                assert over or refused(other.lock("a"))
                try:
                    other.evict(
                        "a",
                        lease.claim_id if column != "token" else claims[0].claim_id,
                        reason="bad",
                        now=True,
                    )
                except lockkit.BackendError:  # alive in a container; a newer version's
                    assert column == "boot" or (column == "min_reader" and wrong.isdecimal())
                else:
                    assert free(other.lock("a")), (column, wrong)
                lease.simulate_loss()
                lease.release()
                write(harness, "DELETE FROM entries WHERE namespace <> ''")
    finally:
        harness.close()


@pytest.mark.parametrize("wrong", WRONG)
def test_a_permit_of_no_weight_leaves_no_room(wrong, tmp_path):
    harness = SqliteHarness(tmp_path)
    try:
        with harness.client() as client, harness.client() as other, client.semaphore("a", 2).acquire(20.0):
            write(harness, f"UPDATE entries SET weight = {wrong} WHERE name = 'a'")
            assert refused(other.semaphore("a", 2))
    finally:
        harness.close()


@pytest.mark.parametrize("column", ["name", "namespace"])
def test_what_is_no_name_is_left_out(column, tmp_path):
    harness = SqliteHarness(tmp_path)
    try:
        with harness.client() as client, harness.client() as other:
            kept = client.lock("b").acquire(20.0)
            lost = client.lock("a", auto_renew=False).acquire(20.0)
            for wrong in ("CAST(x'61ff' AS TEXT)", "x'00ff'", "char(0)", "'a/../' || char(10)"):
                write(harness, f"UPDATE entries SET {column} = {wrong} WHERE namespace <> '' AND name <> 'b'")
                assert other.names() == ["b"]
                assert other.namespaces() == ["default"]
                assert other.inspect("b").claims
            lost.simulate_loss()
            lost.release()
            assert kept.release().outcome == "RELEASED"
    finally:
        harness.close()


def test_a_waiter_behind_a_damaged_claim_disturbs_no_other(tmp_path):
    harness = SqliteHarness(tmp_path)
    try:
        with harness.client() as client, harness.client() as other:
            held = client.lock("b", ttl=harness.short_ttl).acquire(20.0)
            lost = client.lock("a", ttl=harness.short_ttl).acquire(20.0)
            write(harness, "UPDATE entries SET token = 5, weight = 'x' WHERE name = 'a'")
            assert other.lock("b").try_acquire() is None
            held.confirm()
            with pytest.raises(lockkit.LockkitError):
                lost.confirm()
    finally:
        harness.close()


def test_the_release_of_a_lapsed_permit_beside_a_damaged_one_ends(tmp_path):
    harness = SqliteHarness(tmp_path)
    try:
        with harness.client() as client, harness.client() as other:
            damaged = other.semaphore("a", 2, auto_renew=False).acquire(20.0)
            lapsed = client.semaphore("a", 2, auto_renew=False).acquire(20.0)
            write(harness, f"UPDATE entries SET weight = 'x' WHERE fence = {damaged.fence}")
            write(harness, f"UPDATE entries SET deadline = 1 WHERE fence = {lapsed.fence}")
            assert lapsed.release().outcome != "RELEASED"
            damaged.release()
    finally:
        harness.close()


NEWER_ROWS = {
    "sqlite": (
        SqliteHarness,
        lambda harness: write(harness, "UPDATE entries SET min_reader = 99 WHERE name = 'a'"),
    ),
    "redis": (RedisHarness, lambda harness: on_redis(harness, b'{"v": 99, "min_reader": 99}')),
    "etcd": (EtcdHarness, lambda harness: on_etcd(harness, b'{"v": 99, "min_reader": 99}')),
    "zookeeper": (ZooKeeperHarness, lambda harness: on_zookeeper(harness, b'{"v": 99, "min_reader": 99}')),
}


@pytest.mark.parametrize("kind, change", NEWER_ROWS.values(), ids=NEWER_ROWS)
def test_a_claim_for_newer_readers_is_shown_and_blocks(kind, change, tmp_path):
    harness = kind(tmp_path)
    try:
        with harness.client() as client, harness.client() as other:
            lease = client.lock("a", auto_renew=False).acquire(20.0)
            change(harness)
            (claim,) = other.inspect("a").claims
            assert (claim.state, claim.process) == ("HELD", "unknown")
            assert NEWER in claim.evidence
            assert refused(other.lock("a"))
            assert free(other.lock("b"))
            lease.simulate_loss()
            lease.release()
    finally:
        harness.close()


COMMANDS = (
    "status", "status --json", "status a --json", "explain a", "explain a --json", "recover",
    "recover --json", "doctor", "doctor --json", "report --json", "namespaces",
)  # fmt: skip
WRITTEN = (
    b"{bad", b"\xff\x00", b"[" * 3000,
    b'{"owner": {"pid": "../x", "host": 7, "user": ["a"], "started": "x"}, "kind": 3, "v": 1e400}',
    b'{"v": 1, "min_reader": 99}',
    b'{"lockkit": {"progress": [1], "asked": {"a": {"at": "x"}}, "reason": {}}, "pool": {"count": "x"}}',
    (b'{"adopted": {"pid": "x", "user": 3}, "acquire": [], "state": "HELD", "weight": 1, "capacity": 1, '
    b'"claim": "c", "since": -1}'),
    b'{"pool": {"count": 1e400}, "adopted": 5, "deadlock": [], "holds": [[1]], "evicted": {"by": 3}}',
)  # fmt: skip


@pytest.mark.parametrize("kind, damage", STORES, ids=lambda each: getattr(each, "name", ""))
def test_commands_show_what_a_claim_contains(kind, damage, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    harness = kind(tmp_path)
    try:
        with harness.client() as client:
            for garbage in WRITTEN:
                lease = client.lock("a", auto_renew=False).acquire(20.0)
                damage(harness, garbage)
                for line in COMMANDS:
                    words = line.split()
                    code = run([*words, "--url", harness.url])
                    told = capsys.readouterr()
                    assert code in (exits.OK, exits.FAILED), (garbage, line, told.err)
                    assert "Traceback" not in told.err
                harness.wipe() if hasattr(harness, "wipe") else damage(harness, b"{}")
                lease.simulate_loss()
                lease.release()
    finally:
        harness.close()
