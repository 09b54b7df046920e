"""Records with foreign contents: an unreadable record is damaged and not empty, so it gives out no card."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
from contextlib import closing

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import lockkit
import lockkit.gpu
from backends.test_stores_damaged import JSONS
from lockkit.cli import exits
from lockkit.cli.main import run
from lockkit.errors import AcquireTimeout, BackendUnavailable
from lockkit.facts import Owner
from lockkit.gpu.host_pools import simulated
from lockkit.gpu.quarantine import give_back, quarantine
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.notes.members import pool_name
from lockkit.notes.records import change
from lockkit.store.layouts import record_in
from lockkit.values.names import encode
from lockkit_redis.keys import Keys
from support.harnesses.etcd import EtcdHarness
from support.harnesses.memory import MemoryHarness
from support.harnesses.redis import RedisHarness
from support.harnesses.sqlite import SqliteHarness
from support.harnesses.zookeeper import ZooKeeperHarness

ANN = Owner(user="ann", host="box")
HOST = simulated(os.uname().nodename)
FIRST, SECOND = (device.uuid for device in SimulatedProvider(2).snapshot().devices)
POOL = f"gpu-sim/{os.uname().nodename}"
GATE, CARD = pool_name(POOL), pool_name(POOL, FIRST)
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "v": JSONS,
        "version": JSONS | st.integers(-3, 2**64),
        "min_reader": JSONS,
        "written": JSONS,
        "value": JSONS | st.fixed_dictionaries({}, optional={"quarantine": JSONS, "capacity": JSONS}),
    },
)
GARBAGE = (
    RECORDS.map(json.dumps).map(str.encode) | JSONS.map(json.dumps).map(str.encode) | st.binary(max_size=40)
)
WRITTEN = (
    b"", b"{bad", b"\xff\x00", b"[]", b"null", b"[" * 3000, b'{"a":' * 900 + b"1" + b"}" * 900,
    b'{"version": 1, "value": 7}', b'{"version": 1, "value": {"a": "\\ud800"}}',
    b'{"version": 1, "min_reader": "x", "value": {}}',
)  # fmt: skip
"""Contents of a record that nobody can read."""


def on_memory(harness, client, name, garbage):
    client.driver().backend._store.records[name] = record_in(name, garbage, 1)


def on_sqlite(harness, client, name, garbage):
    """The row has columns: a document is written into them, and anything else into the value."""
    try:
        document = json.loads(garbage)
    except (ValueError, RecursionError):
        document = None
    known = document if isinstance(document, dict) and "version" in document else {"value": garbage}
    columns = {
        column: json.dumps(value) if isinstance(value, dict | list) else value
        for column, value in known.items()
        if column in ("version", "value", "min_reader") and value is not None
    }
    columns = {
        column: str(value) if isinstance(value, int) and abs(value) > 2**63 - 1 else value
        for column, value in columns.items()
    }
    with closing(sqlite3.connect(harness.path, isolation_level=None)) as db:
        for column, value in columns.items():
            db.execute(f"UPDATE records SET {column} = ? WHERE name = ?", (value, name))


def on_redis(harness, client, name, garbage):
    (look,) = harness._looks.values()
    look.set(Keys.of(client.namespace, name).record, garbage)


def on_etcd(harness, client, name, garbage):
    key = base64.b64encode(f"lockkit/{client.namespace}/r/{encode(name)}".encode()).decode()
    harness.call("kv/put", {"key": key, "value": base64.b64encode(garbage).decode()})


def on_zookeeper(harness, client, name, garbage):
    harness._look.set(f"{harness._root}/r/{encode(name)}", garbage)


STORES = {
    "memory": (MemoryHarness, on_memory),
    "sqlite": (SqliteHarness, on_sqlite),
    "redis": (RedisHarness, on_redis),
    "etcd": (EtcdHarness, on_etcd),
    "zookeeper": (ZooKeeperHarness, on_zookeeper),
}


@pytest.fixture(params=STORES)
def store(request, tmp_path, monkeypatch):
    """A harness, a client, and a function that writes garbage into a record."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.chdir(tmp_path)
    kind, damage = STORES[request.param]
    harness = kind(tmp_path)
    try:
        with harness.client() as client:
            yield harness, client, lambda name, garbage: damage(harness, client, name, garbage)
    finally:
        harness.close()


def test_whatever_a_record_contains_it_is_a_value_or_damaged_and_can_be_replaced(store):
    _, client, damage = store

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(GARBAGE)
    @example(b"")
    @example(b'{"version": 9223372036854775807, "value": {}}')
    def played(garbage):
        change(client, "a", lambda value: {"n": 1}, instead={})
        damage("a", garbage)
        try:
            record = client.record("a")
        except lockkit.IncompatibleLayout:
            assert b"min_reader" in garbage
            damage("a", b'{"version": 1, "min_reader": 1, "value": {}}')
            return
        json.dumps(dict(record.value))
        if record.damaged:
            assert record.value == {}
            with pytest.raises(BackendUnavailable, match="the record of 'a' in the store is damaged"):
                change(client, "a", lambda value: {"n": 2})
            assert client.record("a").damaged
        client.put_record("a", {"n": 3}, record.version)
        mended = client.record("a")
        assert (mended.value, mended.damaged) == ({"n": 3}, False)

    played()


def granted(client, *, ids=None):
    """The cards that a request gets which does not wait."""
    try:
        with lockkit.gpu.pool(client, simulate=2).acquire(timeout=0, ids=ids) as leases:
            return leases.devices
    except AcquireTimeout:
        return ()


@pytest.mark.parametrize("garbage", WRITTEN, ids=range(len(WRITTEN)))
def test_no_card_is_granted_beside_damaged_marks_until_a_person_clears_it(store, garbage):
    _, client, damage = store
    quarantine(client, HOST, FIRST, "it hums", ANN)
    assert len(granted(client)) == 1
    damage(GATE, garbage)

    assert granted(client) == granted(client, ids=[FIRST]) == ()
    with pytest.raises(BackendUnavailable, match="is damaged"):
        quarantine(client, HOST, SECOND, "by a program", ANN)

    mark = give_back(client, HOST, SECOND, "looked at", ANN, [FIRST, SECOND])
    assert "the record of its mark in the store is damaged" in str(mark)
    assert granted(client, ids=[FIRST]) == ()
    assert len(granted(client)) == 1
    assert give_back(client, HOST, FIRST, "looked at", ANN, [FIRST, SECOND])
    assert len(granted(client, ids=[FIRST])) == 1


@pytest.mark.parametrize("garbage", WRITTEN, ids=range(len(WRITTEN)))
def test_a_card_with_a_damaged_record_is_not_granted_and_the_others_are(store, garbage):
    _, client, damage = store
    assert len(granted(client, ids=[FIRST])) == 1
    damage(CARD, garbage)

    assert granted(client, ids=[FIRST]) == ()
    assert len(granted(client)) == 1

    assert "its record in the store is damaged" in str(
        give_back(client, HOST, FIRST, "", ANN, [FIRST, SECOND])
    )
    assert len(granted(client, ids=[FIRST])) == 1


@pytest.mark.parametrize(
    "key, value",
    [("quarantine", '"x"'), ("quarantine", "null"), ("capacity", '"80 GiB"'), ("capacity", "-1")],
)
def test_a_damaged_part_of_a_record_counts_like_a_damaged_record(store, key, value):
    _, client, damage = store
    assert len(granted(client, ids=[FIRST])) == 1
    quarantine(client, HOST, SECOND, "it hums", ANN)
    name = GATE if key == "quarantine" else CARD
    damage(name, f'{{"version": 1, "value": {{"{key}": {value}}}}}'.encode())

    assert granted(client) == ()
    assert give_back(client, HOST, FIRST, "", ANN, [FIRST, SECOND])
    assert len(granted(client)) == 1


COMMANDS = (
    "gpu ls --gpu-sim 2", "gpu ls --gpu-sim 2 --json", "gpu ls --all-hosts --gpu-sim 2", "doctor", "status",
    f"status {CARD}", f"explain {CARD}", f"explain {CARD} --json", f"explain {GATE}", f"explain {FIRST}",
    "recover", "report --json",
)  # fmt: skip


@pytest.mark.parametrize("damaged", [GATE, CARD], ids=["marks", "card"])
@pytest.mark.parametrize(
    "store",
    ["sqlite", *(pytest.param(each, marks=pytest.mark.full) for each in ("redis", "etcd", "zookeeper"))],
    indirect=True,
)
def test_commands_show_damage_and_one_mends_it(store, damaged, capsys, monkeypatch):
    harness, client, damage = store
    monkeypatch.setenv("LOCKKIT_GPU_SIMULATE", "2")
    monkeypatch.setenv("LOCKKIT_NAMESPACE", client.namespace)

    def told(line):
        code = run([word.replace("URL", harness.url) for word in line.split()])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out + err

    assert len(granted(client, ids=[FIRST])) == 1
    quarantine(client, HOST, SECOND, "it hums", ANN)
    for garbage in WRITTEN:
        damage(damaged, garbage)
        said = {line: told(f"{line} --url URL") for line in COMMANDS}
        assert all(code in (exits.OK, exits.FAILED) for code, _ in said.values()), said
        for line in ("gpu ls --gpu-sim 2", "gpu ls --gpu-sim 2 --json", "doctor", f"explain {damaged}"):
            assert "damaged" in said[line][1], line
        code, text = told(f"run --url URL --gpu 1 --gpu-id {FIRST} --gpu-sim 2 --timeout 0 -- true")
        assert code == exits.BUSY, text

        code, text = told(f"gpu clear {FIRST} --gpu-sim 2 --url URL")
        assert (code, "is damaged" in text) == (exits.OK, True)

        code, text = told(f"run --url URL --gpu 1 --gpu-id {FIRST} --gpu-sim 2 --timeout 0 -- true")
        assert code == exits.OK, text
        assert granted(client, ids=[SECOND]) == ()
