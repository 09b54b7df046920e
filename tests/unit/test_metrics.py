"""Metrics of a process: real clients, a real registry, real forked workers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import lockkit
from lockkit.facts import LOSSES, Alert, Event
from lockkit.observe import instruments, workers
from lockkit.observe.instruments import METRICS
from lockkit.observe.lock_labels import LockLabels
from lockkit.observe.metrics import Metrics
from lockkit.values.events import COUNTERS, KINDS


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def metrics(registry):
    return Metrics(registry, names=["gpu/*", "nightly"])


def settled(client):
    """Waits until all events of a client so far are delivered."""
    client.driver().dispatcher.flush(20)


def test_what_a_program_does_is_counted_by_pattern(metrics, registry):
    with lockkit.connect("memory:", plugins=[metrics]) as client:
        lease = client.lock("gpu/0").acquire()
        assert client.lock("gpu/0").try_acquire() is None
        lease.release(reason="task_failure")
        client.lock("secret customer").acquire().release(reason="whatever somebody wrote")
        settled(client)
        value = registry.get_sample_value

        assert value("lockkit_attempts_total", {"lock": "gpu/*", "outcome": "acquired"}) == 1
        assert value("lockkit_attempts_total", {"lock": "gpu/*", "outcome": "busy"}) == 1
        assert value("lockkit_attempts_total", {"lock": "other", "outcome": "acquired"}) == 1
        assert value("lockkit_wait_seconds_count", {"lock": "gpu/*", "outcome": "acquired"}) == 1
        assert value("lockkit_wait_seconds_count", {"lock": "gpu/*", "outcome": "busy"}) is None, "no wait"
        assert value("lockkit_hold_seconds_count", {"lock": "gpu/*"}) == 1
        released = {"lock": "gpu/*", "outcome": "released", "reason": "task_failure"}
        assert value("lockkit_releases_total", released) == 1
        assert value("lockkit_releases_total", released | {"lock": "other", "reason": "other"}) == 1
        assert value("lockkit_release_layers_total", {"layer": "normal", "outcome": "done"}) == 2
        assert value("lockkit_last_released_timestamp_seconds", {"lock": "gpu/*"}) > 1e9
        assert value("lockkit_build_info", METRICS_BUILD) == 1


METRICS_BUILD = {
    "version": lockkit.__version__,
    "python": ".".join(map(str, sys.version_info[:3])),
}


def test_the_four_counters_are_those_of_the_client_and_begin_at_0(metrics, registry):
    four = (
        "normal_release_failures",
        "emergency_releases",
        "release_script_errors",
        "ownership_violations",
    )
    assert [registry.get_sample_value(f"lockkit_{name}_total") for name in four] == [0] * 4
    with lockkit.connect("memory:", plugins=[metrics]) as client:
        lease = client.lock("a").acquire()
        client.evict("a", lease.claim_id, reason="test", now=True)
        lease.release()

        assert client.stats()["ownership_violations"] == 1
        assert [registry.get_sample_value(f"lockkit_{name}_total") for name in four] == [0, 0, 0, 1]
        settled(client)
        labels = {"lock": "other", "outcome": "lost", "reason": "normal"}
        assert registry.get_sample_value("lockkit_releases_total", labels) == 1
        alert = {"kind": "ownership_violation", "priority": "P1"}
        assert registry.get_sample_value("lockkit_alerts_total", alert) == 1
    del client, lease


def test_losses_of_each_lock_that_was_acquired_count_from_0(metrics, registry):
    """Prometheus sees no increase in a series that starts with 1."""
    with lockkit.connect("memory:", plugins=[metrics]) as client:
        with client.lock("nightly").acquire():
            settled(client)

        for lock, losses in (("nightly", 0), ("gpu/*", None)):
            for reason in LOSSES:
                labels = {"lock": lock, "reason": reason}
                assert registry.get_sample_value("lockkit_losses_total", labels) == losses


def test_what_a_client_counted_before_it_was_closed_is_not_lost(metrics, registry):
    for _ in range(2):
        client = lockkit.connect("memory:", plugins=[metrics])
        lease = client.lock("a").acquire()
        client.evict("a", lease.claim_id, reason="test", now=True)
        lease.release()
        client.close()
        del client, lease

    assert registry.get_sample_value("lockkit_ownership_violations_total") == 2


def test_a_hand_off_is_timed_from_the_release_to_the_next_grant(metrics, registry):
    with lockkit.connect("memory:", plugins=[metrics]) as client:
        lease = client.lock("nightly").acquire()
        queued = threading.Event()

        def waits():
            client.lock("nightly").acquire(timeout=20, on_wait=lambda _: queued.set()).release()

        thread = threading.Thread(target=waits)
        thread.start()
        assert queued.wait(30)
        lease.release()
        thread.join(30)
        settled(client)

        assert registry.get_sample_value("lockkit_handoff_seconds_count", {"lock": "nightly"}) == 1
        assert registry.get_sample_value("lockkit_queued_total", {"lock": "nightly"}) == 1


def test_a_hand_off_is_timed_where_the_grant_is_told_of_before_the_release(metrics, registry):
    """Two threads tell of the two; the one that releases may be slow to read its answer."""
    metrics.lockkit_event(Event("acquired", "nightly", duration=0.001, boottime=100.0))
    metrics.lockkit_event(Event("acquired", "nightly", duration=5.0, boottime=109.0))
    metrics.lockkit_event(Event("released", "nightly", until=108.5, boottime=109.5))
    assert registry.get_sample_value("lockkit_handoff_seconds_count", {"lock": "nightly"}) == 1
    assert registry.get_sample_value("lockkit_handoff_seconds_sum", {"lock": "nightly"}) == 0
    metrics.lockkit_event(Event("released", "nightly", until=110.0, boottime=111.0))
    metrics.lockkit_event(Event("acquired", "nightly", duration=0.5, boottime=112.0))
    assert registry.get_sample_value("lockkit_handoff_seconds_count", {"lock": "nightly"}) == 1, "no wait"


def test_two_plugins_on_one_registry_share_its_metrics(registry):
    first, second = Metrics(registry), Metrics(registry)
    for metrics in (first, second):
        metrics.lockkit_event(Event("queued", "a"))

    assert registry.get_sample_value("lockkit_queued_total", {"lock": "other"}) == 2


def test_every_kind_of_event_and_alert_is_counted(metrics, registry):
    for kind in KINDS:
        metrics.lockkit_event(Event(kind, "a", data={"plugin": "p", "outcome": "DONE"}))
        assert registry.get_sample_value("lockkit_events_total", {"kind": kind}) == 1
    metrics.lockkit_alert(Alert("gpu_dirty", "P2", "text"))
    assert registry.get_sample_value("lockkit_alerts_total", {"kind": "gpu_dirty", "priority": "P2"}) == 1


def test_every_metric_of_the_list_is_registered_and_no_other(metrics, registry):
    listed = {metric.name for metric in METRICS.values() if metric.source == "process"}

    names = {
        name
        for name in registry._names_to_collectors
        if not name.endswith(("_created", "_bucket", "_sum", "_count"))
    }
    assert {name for name in names if name in METRICS} == listed
    assert {f"{name}_total" if f"{name}_total" in METRICS else name for name in names} == listed


def test_every_counter_of_a_client_is_a_metric():
    """Counters of outcomes are one metric, with the outcome as label."""
    by_outcome = {
        "attempts",
        "acquired",
        "busy",
        "timeouts",
        "cancelled",
        "failed",
        "released",
        "lost",
        "skipped",
    }

    assert {metric.stat for metric in METRICS.values() if metric.stat} == set(COUNTERS) - by_outcome


def test_a_name_alone_comes_before_patterns_and_own_names_are_bounded():
    label = LockLabels(["gpu/*", "gpu/0"], raw=True, most=2)

    assert [label(name) for name in ("gpu/0", "gpu/1", "a", "b", "c", "a", "c")] == [
        *("gpu/0", "gpu/*", "a", "b"),
        *(instruments.OTHER, "a", instruments.OTHER),
    ]


MANY = 10_000
FEW_ROWS = 1_600
"""Rows of a page for a handful of locks; with one more for each lock there would be twenty times as many."""


def locks(registry):
    """The values of the label `lock` on a page of metrics, which has few rows."""
    page = generate_latest(registry).decode()
    assert len(page.splitlines()) < FEW_ROWS
    families = text_string_to_metric_families(page)
    return {sample.labels["lock"] for one in families for sample in one.samples if "lock" in sample.labels}


def test_ten_thousand_names_make_no_more_series_than_somebody_asked_for(metrics, registry):
    with lockkit.connect("memory:", plugins=[metrics]) as client:
        for number in range(MANY):
            client.lock(f"{'gpu' if number % 2 else 'customer'}/{number}").acquire().release(f"why {number}")
            if number % 1000 == 0:
                settled(client)
        settled(client)
        told = client.stats()["acquired"] + client.stats()["released"] - client.stats()["events_dropped"]

    assert locks(registry) == {"gpu/*", "other"}
    total = sum(
        registry.get_sample_value("lockkit_events_total", {"kind": kind}) for kind in ("acquired", "released")
    )
    assert total == told == 2 * MANY


def test_names_of_their_own_are_bounded_for_all_clients_of_a_registry_together(registry):
    for turn in range(5):
        plugin = Metrics(registry)  # as the setting metrics.enabled does for each client
        with lockkit.connect("memory:", plugins=[plugin], metrics_raw_names=True, metrics_most=20) as client:
            for number in range(30):
                client.lock(f"{turn}/{number}").acquire().release()
            settled(client)

    assert len(locks(registry)) == 21, "twenty and `other`"


PREFORK = """
    import os, sys, lockkit
    from lockkit.observe.metrics import Metrics

    metrics = Metrics(names=["gpu/*"])
    client = lockkit.connect("memory:", plugins=[metrics])
    client.lock("gpu/master").acquire().release()
    workers = []
    for worker in range(3):
        pid = os.fork()
        if not pid:
            try:
                for _ in range(10):
                    client.lock(f"gpu/{worker}").acquire().release()
                lease = client.lock("a").acquire()
                client.evict("a", lease.claim_id, reason="test", now=True)
                lease.release()
                client.driver().dispatcher.flush(20)
                client.close()
                metrics.sync()
            except BaseException as error:
                print(repr(error), flush=True)
                os._exit(1)
            os._exit(0)
        workers.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers]
    client.driver().dispatcher.flush(20)
    client.close()
    metrics.sync()
    assert codes == [0, 0, 0], codes
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    sys.stdout.write(generate_latest(registry).decode())
"""


def test_forked_workers_count_each_for_itself_in_multiprocess_mode(tmp_path):
    environ = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "LOCKKIT_CONFIG": "/dev/null"}

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(PREFORK)],
        check=False,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
    }
    labelled = {(name, tuple(sorted(labels))): value for (name, *labels), value in samples.items()}
    assert labelled["lockkit_attempts_total", ("acquired", "gpu/*")] == 31
    assert labelled["lockkit_ownership_violations_total", ()] == 3


LEFT = """
    import os, sys, time
    import prometheus_client.mmap_dict as files
    import lockkit
    from lockkit.observe import workers
    from lockkit.observe.metrics import Metrics
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    pid = os.fork()
    if not pid:
        # The worker ends just when its first file is made, before the file has a size.
        real = open
        def leaves(*arguments):
            real(*arguments)
            os._exit(0)
        files.open = leaves
        with lockkit.connect("memory:", plugins=[Metrics(names=["gpu/*"])]):
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
    (empty,) = os.listdir(folder)
    assert os.path.getsize(f"{folder}/{empty}") == 0
    metrics = Metrics(names=["gpu/*"])
    with lockkit.connect("memory:", plugins=[metrics]) as client:
        client.lock("gpu/0").acquire().release()
    metrics.sync()

    def scrape(kind):
        registry = CollectorRegistry()
        kind(registry)
        return generate_latest(registry).decode()

    try:
        scrape(MultiProcessCollector)
    except Exception as error:
        print("prometheus_client raises", type(error).__name__)
    print(scrape(workers.WorkerCollector))
    assert workers.remove_empty(folder) == 0, "it may have been made just now"
    os.utime(f"{folder}/{empty}", (1.0, 1.0))
    os.close(os.open(f"{folder}/counter_{os.getpid()}0.txt", os.O_CREAT))
    os.close(os.open(f"{folder}/mine.db", os.O_CREAT))
    os.utime(f"{folder}/mine.db", (1.0, 1.0))
    assert workers.remove_empty(folder) == 1
    assert os.path.exists(f"{folder}/mine.db")
    os.unlink(f"{folder}/mine.db")
    print(scrape(MultiProcessCollector))
    open(f"{folder}/counter_1.db", "wb").write(b"\\x7f" * 100)
    print(scrape(workers.WorkerCollector))
    assert workers.remove_empty(folder) == 0
"""


def test_an_empty_file_of_a_worker_that_has_ended_breaks_no_scrape_and_is_removed(tmp_path):
    environ = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "LOCKKIT_CONFIG": "/dev/null"}

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(LEFT)],
        check=False,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("prometheus_client raises error\n"), "struct.error"
    granted = 'lockkit_attempts_total{lock="gpu/*",outcome="acquired"} 1.0'
    assert done.stdout.count(granted) == 3
    unreadable = [row for row in done.stdout.splitlines() if row.startswith(workers.UNREADABLE)]
    assert unreadable == [f"{workers.UNREADABLE} 1.0"] * 2


@pytest.mark.parametrize(
    "name, what",
    [
        ("lockkit_queued_total", Event("queued", "a")),
        ("lockkit_alerts_total", Alert("unheard of", "P2", "a")),
    ],
    ids=["event", "alert"],
)
def test_no_child_is_forked_while_something_is_being_counted(metrics, registry, monkeypatch, name, what):
    """Locks of prometheus_client would stay taken in the child for ever."""
    counter = registry._names_to_collectors[name]
    entered, let_go = threading.Event(), threading.Event()

    def labels(*_):
        with counter._lock:
            entered.set()
            let_go.wait(30)
        raise LookupError("enough")

    monkeypatch.setattr(counter, "labels", labels)

    def counts():
        count = metrics.lockkit_event if isinstance(what, Event) else metrics.lockkit_alert
        with pytest.raises(LookupError):
            count(what)

    thread = threading.Thread(target=counts)
    thread.start()
    assert entered.wait(30)
    threading.Timer(
        0.3, let_go.set
    ).start()  # without the gate the fork comes first, and the child finds the lock taken
    child = os.fork()
    if not child:
        os._exit(not counter._lock.acquire(timeout=1))
    thread.join(30)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_setting_turns_metrics_on_without_a_change_of_the_program(tmp_path):
    program = """
        import lockkit
        from prometheus_client import REGISTRY
        with lockkit.connect("memory:") as client:
            client.lock("job:7").acquire().release()
            client.driver().dispatcher.flush(20)
        print(REGISTRY.get_sample_value("lockkit_attempts_total", {"lock": "job:*", "outcome": "acquired"}))
    """
    (tmp_path / "lockkit.toml").write_text('[metrics]\nenabled = true\nnames = ["job:*"]\n')
    environ = os.environ | {"LOCKKIT_CONFIG": str(tmp_path / "lockkit.toml")}

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        check=False,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout == "1.0\n", done.stderr


def test_without_prometheus_client_a_program_locks_all_the_same(caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "lockkit.observe.metrics", raising=False)

    with lockkit.connect("memory:", metrics_enabled=True) as client:
        client.lock("a").acquire().release()

    assert "pip install 'lockkit[metrics]'" in caplog.text
