"""The exporter on real stores: what it counts, what it marks as missing, and a store that does not answer."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

import lockkit
from lockkit.errors import BackendUnavailable, PermissionDenied
from lockkit.facts import Event
from lockkit.notes.last_holds import LastHolds, last_hold, record_of
from lockkit.observe.exporter import Exporter
from lockkit.observe.instruments import METRICS
from lockkit.observe.store_reading import Reading, largest_only
from lockkit.testing.children import Child
from lockkit.values.names import ALERTER
from support.servers.redis import RedisServer


def parsed(text):
    """The samples of a text, by name and the value of the label `lock`."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            rest = tuple(v for k, v in sample.labels.items() if k not in ("store", "namespace"))
            found[(sample.name, *rest)] = sample.value
    return found


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_CONFIG", "/dev/null")
    with lockkit.connect(
        f"sqlite:{tmp_path}/locks.db", metrics_names=["gpu/*", "nightly"], namespace="prod"
    ) as client:
        yield client


def test_queues_are_counted_by_pattern_and_raw_names_never_show(client):
    held = [client.lock(name).acquire() for name in ("gpu/0", "gpu/1", "secret customer")]
    queued = threading.Event()
    waiter = lockkit.connect(client.config.url, namespace="prod", task="another of this process")

    def waits():
        with pytest.raises(lockkit.AcquireCancelled):
            waiter.lock("gpu/0").acquire(timeout=60, on_wait=lambda _: queued.set())

    thread = threading.Thread(target=waits)
    thread.start()
    assert queued.wait(30)

    text = Exporter(client, keep=0).text()
    found = parsed(text)

    assert found["lockkit_locks", "gpu/*"] == 2
    assert found["lockkit_holders", "gpu/*"] == 2
    assert found["lockkit_waiters", "gpu/*"] == 1
    assert found["lockkit_longest_queue", "gpu/*"] == 1
    assert found["lockkit_locks", "other"] == 1
    assert found["lockkit_locks", "nightly"] == 0
    assert found["lockkit_store_up",] == 1
    assert found["lockkit_scrape_partial",] == 0
    assert found["lockkit_clients", lockkit.__version__, "1"] == 1
    assert any(key[0] == "lockkit_blocked_seconds" and key[1] == "gpu/*" for key in found)
    assert b"secret" not in text
    assert f'store="{client.url}",namespace="prod"' in text.decode()
    waiter.close()
    thread.join(30)
    for lease in held:
        lease.release()


def test_more_locks_than_are_read_are_marked(client):
    leases = [client.lock(f"n{at}").acquire() for at in range(3)]

    found = parsed(Exporter(client, keep=0, most=2).text())

    assert found["lockkit_locks", "other"] == 2
    assert found["lockkit_scrape_partial",] == 1
    for lease in leases:
        lease.release()


def test_ten_thousand_locks_make_a_short_page(monkeypatch):
    monkeypatch.setenv("LOCKKIT_CONFIG", "/dev/null")
    with lockkit.connect("memory:", metrics_names=["gpu/*"]) as client:
        leases = [
            client.lock(f"{'gpu' if at % 2 else 'customer'}/{at}", ttl=3600).acquire() for at in range(10_000)
        ]
        short, whole = (Exporter(client, patience=120.0, most=most).text() for most in (100, 10_000))
        for lease in leases:
            lease.release()

    for text in (short, whole):
        assert len(text.splitlines()) < 100
    assert parsed(short)["lockkit_scrape_partial",] == 1
    assert parsed(short)["lockkit_locks", "gpu/*"] + parsed(short)["lockkit_locks", "other"] == 100
    assert parsed(whole)["lockkit_scrape_partial",] == 0
    assert (parsed(whole)["lockkit_locks", "gpu/*"], parsed(whole)["lockkit_locks", "other"]) == (5000, 5000)


def test_versions_that_a_store_makes_up_are_bounded():
    reading = Reading()
    for at in range(1000):
        reading.add("lockkit_clients", (f"9.9.{at}", str(at)), 1)
    for _ in range(3):
        reading.add("lockkit_clients", (lockkit.__version__, "1"), 1)
    largest_only(reading)
    kept = {labels: value for (_, labels), value in reading.values.items()}
    assert len(kept) == 21
    assert kept[lockkit.__version__, "1"] == 3
    assert kept["other", "other"] == 981
    assert sum(kept.values()) == 1003


def test_clients_are_counted_by_the_layout_of_their_claims(client, tmp_path):
    """A client of a newer but readable layout, and one that reports nothing, beside one of this version."""
    lease = client.lock("nightly").acquire()
    with contextlib.closing(sqlite3.connect(tmp_path / "locks.db")) as raw, raw:
        for at, (owner, told) in enumerate(
            [
                ({"pid": 1, "version": "9.9", "task": "a", "task_id": "7", "retries": 1}, {"v": 2}),
                ({"pid": 1, "version": "9.9", "task": "b", "worker": "w"}, {"v": 2}),
                ({"pid": 2, "version": "9.9"}, {"v": 2}),
                ({"pid": 3}, {}),
            ],
            1,
        ):
            raw.execute(
                f"INSERT INTO entries SELECT namespace, name, fence + {at}, hex(randomblob(16)), 0, evicted,"
                f" weight, capacity, process_bound, deadline, silence, ttl, since, renewed, hold_end,"
                f" min_hold, lock_delay, boot, epoch, fifo, ?,"
                f" note, asked, min_reader FROM entries WHERE name = 'nightly' AND fence = ?",
                (json.dumps({**told, "kind": "mutex", "owner": owner}), lease.fence),
            )

    found = parsed(Exporter(client, keep=0).text())

    clients = {key[1:]: value for key, value in found.items() if key[0] == "lockkit_clients"}
    assert clients == {(lockkit.__version__, "1"): 1, ("9.9", "2"): 2, ("unknown", "unknown"): 1}
    lease.release()


def test_the_age_of_a_lock_that_lockkit_holds_itself_says_nothing(monkeypatch):
    monkeypatch.setenv("LOCKKIT_CONFIG", "/dev/null")
    ages = {"age_warning": 0.001, "age_soft": 0.002, "age_hard": 0.003}
    with (
        lockkit.connect("memory:", metrics_names=["a", ALERTER], **ages) as client,
        client.lock(ALERTER),
        client.lock("a"),
    ):
        exporter = Exporter(client, keep=0)
        while ("lockkit_overdue_holds", "a", "hard") not in (found := parsed(exporter.text())):
            pass

    assert found["lockkit_holders", ALERTER] == 1
    assert not [key for key in found if key[:2] == ("lockkit_overdue_holds", ALERTER)]


def test_one_reading_answers_all_who_ask_within_a_few_seconds(client):
    exporter = Exporter(client, keep=3600)
    before = parsed(exporter.text())

    with client.lock("gpu/0"):
        assert parsed(exporter.text()) == before
        assert parsed(Exporter(client, keep=3600).text())["lockkit_locks", "gpu/*"] == 1


def test_a_store_that_does_not_answer_is_down_and_raises_nothing():
    with lockkit.connect("redis://127.0.0.1:1", request_timeout=0.2) as client:
        found = parsed(Exporter(client).text())

    assert found["lockkit_store_up",] == 0
    assert found["lockkit_scrape_partial",] == 1


def test_a_store_that_hangs_is_down_in_time_and_holds_one_thread(client, monkeypatch):
    let_go = threading.Event()
    calls = []

    def hang(*args, **keywords):
        calls.append(args)
        let_go.wait(60)
        raise BackendUnavailable("it hung")

    monkeypatch.setattr(client, "names", hang)
    exporter = Exporter(client, patience=0.05)
    try:
        for _ in range(3):
            assert parsed(exporter.text())["lockkit_store_up",] == 0
        assert len(calls) == 1
    finally:
        let_go.set()


def test_the_last_time_that_a_configured_lock_was_seen_held(client):
    exporter = Exporter(client, keep=0)
    first = parsed(exporter.text())["lockkit_last_held_timestamp_seconds", "nightly"]
    with client.lock("nightly"):
        seen = parsed(exporter.text())["lockkit_last_held_timestamp_seconds", "nightly"]
    after = parsed(exporter.text())["lockkit_last_held_timestamp_seconds", "nightly"]

    assert first <= seen <= after <= time.time()


@pytest.fixture(params=["sqlite", "redis"])
def shared_url(request, tmp_path):
    return (
        f"sqlite:{tmp_path}/locks.db" if request.param == "sqlite" else request.getfixturevalue("redis_url")
    )


@pytest.fixture
def regular(shared_url, tmp_path, monkeypatch):
    """Makes clients of one store, configured with ``nightly`` and ``weekly``, metrics ``by/*``, ``daily``."""
    path = tmp_path / "lockkit.toml"
    path.write_text('[alerts.rules.missed_run]\nperiods = {nightly = "26h", weekly = "8d"}\n')
    monkeypatch.setenv("LOCKKIT_CONFIG", str(path))
    return lambda: lockkit.connect(shared_url, namespace="jobs", metrics_names=["by/*", "daily"])


LAST = "lockkit_last_held_timestamp_seconds"


def test_an_exporter_that_begins_after_a_release_tells_when_that_was(regular):
    with regular() as holder:
        for name in ("nightly", "daily", "by/name", "unnamed"):
            with holder.lock(name):
                pass
        holder.driver().dispatcher.flush(20.0)
    with regular() as reader:
        assert all(reader.record(record_of(name)) for name in ("nightly", "daily"))
        assert not any(reader.record(record_of(name)) for name in ("by/*", "by/name", "weekly", "unnamed"))
        assert reader.record("nightly") is None, "the record of the name is its user's"
        began = time.time()
        found = parsed(Exporter(reader, keep=0).text())
        again = parsed(Exporter(reader, keep=0).text())

    assert found[LAST, "nightly"] <= found[LAST, "daily"] < began, "the store remembers them"
    assert (again[LAST, "nightly"], again[LAST, "daily"]) == (found[LAST, "nightly"], found[LAST, "daily"])
    for name in ("weekly", "by/*"):
        assert began <= found[LAST, name] <= again[LAST, name], (
            f"nothing is known of {name}, so the first look counts"
        )
    assert found["lockkit_scrape_partial",] == 0


def test_a_missed_run_is_told_by_an_exporter_that_was_started_afterwards(regular):
    two_days = 172_800.0
    with regular() as client:
        with client.lock("nightly"):
            pass
        client.driver().dispatcher.flush(20.0)
        record = client.record(record_of("nightly"))
        client.put_record(
            record_of("nightly"), {**record.value, "at": record.value["at"] - two_days}, record.version
        )

        found = parsed(Exporter(client, keep=0).text())

        assert time.time() - found[LAST, "nightly"] > found["lockkit_period_seconds", "nightly"]
        with client.lock("nightly"):
            running = parsed(Exporter(client, keep=0).text())
        assert time.time() - running[LAST, "nightly"] < found["lockkit_period_seconds", "nightly"]


def test_a_last_hold_is_never_replaced_by_an_earlier_one_and_a_busy_lock_writes_seldom():
    with lockkit.connect("memory:") as client:
        kept = LastHolds(client.driver().backend, 2.0)
        tell = lambda kind, at, boottime: kept.lockkit_event(Event(kind, "a", at=at, boottime=boottime))  # noqa: E731
        tell("acquired", 90.0, 90.0)
        assert client.record(record_of("a")) is None
        tell("released", 100.0, 100.0)
        tell("released", 105.0, 105.0)
        assert client.record(record_of("a")).value == {"at": 100.0, "how": "released"}
        tell("lost", 99.0, 120.0)
        assert client.record(record_of("a")).value == {"at": 100.0, "how": "released"}
        tell("max_hold", 140.0, 140.0)
        assert client.record(record_of("a")).value == {"at": 140.0, "how": "max_hold"}
        assert client.record(record_of("a")).version == 2
        assert last_hold(client, "a") == 140.0
        client.put_record(record_of("a"), {"at": "soon"}, 2)
        assert last_hold(client, "a") is None


def test_a_last_hold_that_cannot_be_kept_costs_nothing_and_one_that_cannot_be_read_is_marked(
    regular, monkeypatch
):
    with regular() as client:
        backend = client.driver().backend
        monkeypatch.setattr(type(backend), "put_record", lambda *_: 1 / 0)
        with client.lock("nightly"):
            pass
        client.driver().dispatcher.flush(20.0)
        assert client.stats()["released"] == 1
        assert client.record(record_of("nightly")) is None

        def denied(name):
            raise PermissionDenied(name)

        monkeypatch.setattr(client, "record", denied)
        found = parsed(Exporter(client, keep=0).text())
    assert (found["lockkit_store_up",], found["lockkit_scrape_partial",]) == (1, 1)


def test_the_periods_of_regular_jobs_are_those_of_the_alert_rules(tmp_path, monkeypatch):
    path = tmp_path / "lockkit.toml"
    path.write_text(
        """
        [alerts.rules.missed_run]
        periods = {nightly = "26h", hourly = 3600, wrong = "soon"}
        enabled = false
        [alerts.rules.another]
        when = "missed"
        periods = {nightly = "25h"}
        [alerts.rules.lost]
        severity = "P0"
        """
    )
    monkeypatch.setenv("LOCKKIT_CONFIG", str(path))
    with lockkit.connect("memory:") as client, client.lock("nightly"):
        found = parsed(Exporter(client, keep=0).text())

    periods = {key[1]: value for key, value in found.items() if key[0] == "lockkit_period_seconds"}
    assert periods == {"nightly": 90_000.0, "hourly": 3600.0}
    assert found["lockkit_holders", "nightly"] == 1, "a lock with a period has a value of its own"
    held = "lockkit_last_held_timestamp_seconds"
    assert found[held, "hourly"] <= found[held, "nightly"]


@pytest.fixture
def redis_url():
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server")
    with RedisServer() as server:
        yield server.url()


def test_a_claim_whose_owner_was_killed_is_a_zombie(redis_url, monkeypatch):
    """On a server, because the embedded store removes the claims of the dead itself."""
    monkeypatch.setenv("LOCKKIT_CONFIG", "/dev/null")
    url = redis_url

    def hold(parent):
        lease = lockkit.connect(url, namespace="zombies").lock("gpu/0", ttl=600).acquire(timeout=10)
        parent.tell(lease.claim_id)
        parent.hear()

    with lockkit.connect(url, namespace="zombies", metrics_names=["gpu/*"]) as client:
        holder = Child(hold)
        try:
            claim = holder.read(30.0)
            alive = parsed(Exporter(client, keep=0).text())
        finally:
            holder.kill()
        dead = parsed(Exporter(client, keep=0).text())
        client.evict("gpu/0", claim, reason="the end of the test", now=True)
        gone = parsed(Exporter(client, keep=0).text())

    zombies = ("lockkit_zombies", "gpu/*", "gone")
    assert not alive.get(zombies)
    assert dead[zombies] == 1
    assert dead["lockkit_holders", "gpu/*"] == 1
    assert not gone.get(zombies)


def test_every_metric_of_a_store_is_in_the_closed_list(client):
    with client.lock("gpu/0"):
        names = {key[0] for key in parsed(Exporter(client, keep=0).text())}

    assert names <= {metric.name for metric in METRICS.values() if metric.source == "store"}
