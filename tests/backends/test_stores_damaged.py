"""Claims into which others have written: any content of a claim is shown, blocks like a claim, and stops nothing else."""

from __future__ import annotations

import base64
import json
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lockkit
from lockkit.facts import ClaimInfo, Owner
from lockkit.names import encode
from lockkit.store.untrusted import DAMAGED, claim_of, object_in, owner_of
from support.harnesses.etcd import EtcdHarness
from support.harnesses.redis import RedisHarness
from support.harnesses.sqlite import SqliteHarness
from support.harnesses.zookeeper import ZooKeeperHarness

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
        b"{bad", b"[" * 3000, b'{"a":' * 900 + b"1" + b"}" * 900, b'{"pool": {"count": 1e400}}', b'{"x": "\\ud800"}',
        b'{"owner": {"pid": "../x", "started": 1.0}}', b'{"owner": {"pid": 1' + b"0" * 30 + b"}}", b"\x00", b"9" * 5000,
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
        with harness.client() as client, harness.client() as other:

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
                    assert other.lock("a").try_acquire() is None
                except lockkit.BackendError:
                    pass
                harness.wipe() if hasattr(harness, "wipe") else damage(harness, b"{}")
                lease.simulate_loss()
                lease.release()

            played()
    finally:
        harness.close()
