"""The gate before an object: on a server that refuses a wrong If-Match, and on stores that do not."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import obstore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import LocalStore, MemoryStore, S3Store

from lockkit import guard
from lockkit.cli.main import run
from lockkit.errors import (
    BackendUnavailable,
    CapabilityError,
    ConfigError,
    IncompatibleLayout,
    OutcomeUnknown,
    StaleFence,
)
from lockkit.guard import FenceGate, swapping
from lockkit.guard.on_object import StoredObject
from lockkit.guard.swapping import Swapping
from lockkit.store.spi import Refused, Unknown
from lockkit.testing.processes import ServerProcess, free_port, scratch_folder, until
from support.guards import FakeLease, lost, lost_in_some_run
from support.guards.bytewise import Bytewise
from support.guards.contract import GateContract
from support.guards.faults import outcomes
from support.guards.mutants import Blind, never_stale, takes_late_requests

RETRIES = {"retry_config": {"max_retries": 0}}


@pytest.fixture(scope="module")
def endpoint():
    """moto, as a server of its own: it keeps to If-Match and If-None-Match."""
    process = ServerProcess(scratch_folder("moto"))
    port = free_port()
    program = Path(sys.executable).with_name("moto_server")
    try:
        process.start([str(program), "-H", "127.0.0.1", "-p", str(port)])
        url = f"http://127.0.0.1:{port}"
        until(lambda: not process.alive or _made(url), "it has a bucket", 60.0)
        assert process.alive, process.last_words()
        yield url
    finally:
        process.stop()
        process.remove()


def _made(url):
    import urllib.request

    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"{url}/guarded", method="PUT"), timeout=40
        ) as answer:
            return answer.status == 200
    except OSError:
        return False


def s3(endpoint, **more):
    return S3Store(
        "guarded",
        endpoint=endpoint,
        region="us-east-1",
        access_key_id="a",
        secret_access_key="b",
        client_options={"allow_http": True},
        **{**RETRIES, **more},
    )


@pytest.fixture(params=["s3", "memory"])
def store(request):
    if request.param == "memory":
        return MemoryStore()
    made = s3(request.getfixturevalue("endpoint"))
    for page in made.list():
        made.delete([each["path"] for each in page])
    return made


class TestContract(GateContract):
    @pytest.fixture
    def make(self, store):
        return partial(guard.objects, store, "reports/today")


def read(store, key):
    try:
        return bytes(store.get(key).bytes())
    except FileNotFoundError:
        return None


class Pausing(StoredObject):
    """An object whose holder may be paused before each request, and whose answers may be lost."""

    lost = 0

    def __init__(self, store, path, pause=lambda: None):
        super().__init__(store, path)
        self.pause = pause
        self.between = lambda: None
        self._proved = True  # the proof is not what these tests are about

    def _read(self):
        self.pause()
        return super()._read()

    def _put(self, path, content, version):
        self.pause()
        tag = super()._put(path, content, version)
        if self.lost:
            self.lost -= 1
            self.between()
            raise Unknown(OutcomeUnknown("the answer was lost"))
        return tag


class TwoSteps(Pausing):
    """A gate that compares when it reads, and then writes whatever the version is."""

    def _put(self, path, content, version):
        self.pause()
        return self._store.put(path, content)["e_tag"]


class BlindKey(Blind, Pausing):
    """A gate that reads without a look at the record."""


class Counter(Bytewise):
    """Without a gate the objects have no first line."""

    def value(self):
        return int((self._read(self._key) or b"0").rpartition(b"\n")[2] or 0)


def counter(store, kind=Pausing):
    return Counter(
        lambda key, pause: FenceGate(Swapping(kind(store, key, pause))), partial(read, store), store.put
    )


def test_an_unguarded_object_loses_updates(store):
    assert lost_in_some_run(counter(store), guarded=False)


def test_a_guarded_object_loses_none(store):
    assert not lost_in_some_run(counter(store))


@settings(max_examples=20)
@given(schedule=st.lists(st.integers(0, 5), max_size=30))
def test_a_guarded_object_loses_none_among_three_holders(schedule):
    assert lost(counter(MemoryStore()), schedule, holders=3) == 0


def test_the_schedules_kill_a_gate_that_compares_and_then_writes(store):
    assert lost_in_some_run(counter(store, TwoSteps))


def test_the_schedules_kill_a_gate_that_does_not_compare(store, monkeypatch):
    monkeypatch.setattr(swapping, "judged", never_stale)

    assert lost_in_some_run(counter(store, BlindKey))


def test_every_version_differs_so_that_no_etag_comes_back(store):
    gate = guard.objects(store, "a")
    tags = []
    for fence in (3, 4):
        guarded = gate.open(FakeLease(fence))
        tags.append(store.head("a")["e_tag"])
        for _ in range(2):
            guarded.write(b"the same")
            tags.append(store.head("a")["e_tag"])

    assert len(set(tags)) == 6


def test_a_write_without_an_answer_is_repeated_and_takes_effect_once(store):
    stored = Pausing(store, "a")
    guarded = FenceGate(Swapping(stored)).open(FakeLease(3))
    stored.lost = 1

    guarded.write(b"one")

    assert guarded.read() == b"one"


def test_a_write_whose_answer_a_newer_holder_has_overtaken_is_unknown(store):
    stored = Pausing(store, "a")
    guarded = FenceGate(Swapping(stored)).open(FakeLease(3))
    stored.between = lambda: guard.objects(store, "a").open(FakeLease(4))
    stored.lost = 1

    with pytest.raises(OutcomeUnknown, match="a newer holder has opened it since"):
        guarded.write(b"one")


# -- a bad network


NETWORKS = {
    "schedule": st.lists(st.integers(0, 5), max_size=30),
    "faults": st.lists(st.integers(0, 9), max_size=15),
}


@settings(max_examples=60)
@given(**NETWORKS)
def test_on_a_bad_network_what_was_written_stays_and_what_was_refused_is_not_there(schedule, faults):
    store = MemoryStore()
    found = outcomes(lambda: Swapping(Pausing(store, "a")), schedule, faults)
    assert found.fit(int(guard.objects(store, "a").peek().value or 0))


def test_a_bad_network_kills_a_gate_that_lets_a_late_request_in(monkeypatch):
    monkeypatch.setattr(swapping, "judged", takes_late_requests)
    store = MemoryStore()

    # A copy of the first write arrives last.
    found = outcomes(lambda: Swapping(Pausing(store, "a")), [], [0, 3], holders=1)
    assert not found.fit(int(guard.objects(store, "a").peek().value))


# -- stores that cannot refuse


class Ignoring:
    """A store that accepts the conditions and ignores them, as some are said to do."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def put(self, path, content, mode=None):
        return self._store.put(path, content, mode="create" if mode == "create" else "overwrite")


def test_a_store_that_ignores_a_wrong_etag_is_refused_before_anything_is_written():
    store = MemoryStore()

    with pytest.raises(CapabilityError, match="ignores If-Match"):
        guard.objects(Ignoring(store), "a").open(FakeLease(3))

    assert [each["path"] for page in store.list() for each in page] == []


def test_a_store_without_conditional_writes_is_refused(tmp_path):
    with pytest.raises(CapabilityError):
        guard.objects(LocalStore(tmp_path), "a").open(FakeLease(3))
    assert list(tmp_path.iterdir()) == []


def test_the_proof_leaves_nothing_behind_and_is_made_once(store):
    gate = guard.objects(store, "a")
    gate.open(FakeLease(3)).write(b"one")

    assert [each["path"] for page in store.list() for each in page] == ["a"]
    assert gate.resource.under._proved


def test_a_conflict_of_two_requests_is_no_refusal():
    class Conflicting:
        def put(self, *words, **more):
            raise obstore.exceptions.GenericError("status code: 409 Conflict: ConditionalRequestConflict")

        def get(self, *words):
            raise AssertionError

    with pytest.raises(Unknown):
        StoredObject(Conflicting(), "a")._put("a", b"x", '"1"')


def test_a_store_that_repeats_requests_by_itself_is_refused():
    with pytest.raises(ConfigError, match="max_retries"):
        guard.objects(s3("http://127.0.0.1:1", retry_config=None), "a")


def test_a_store_that_cannot_be_reached_is_an_error_in_time():
    gate = guard.objects(s3(f"http://127.0.0.1:{free_port()}"), "a", timeout=0.1)

    with pytest.raises(BackendUnavailable):
        gate.open(FakeLease(3))
    with pytest.raises(Refused):
        gate.resource.look(0.0)


def test_an_object_that_no_gate_has_written_is_not_written_over(store):
    store.put("a", b"mine")

    with pytest.raises(IncompatibleLayout):
        guard.objects(store, "a").open(FakeLease(3))
    assert read(store, "a") == b"mine"


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "../a", "a\n", 7])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(ConfigError):
        guard.objects(MemoryStore(), path)


def test_a_newer_holder_is_seen_by_another_process(endpoint):
    program = f"""
from obstore.store import S3Store
from lockkit import guard
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from support.guards import FakeLease
store = S3Store("guarded", endpoint={endpoint!r}, region="us-east-1",
    access_key_id="a", secret_access_key="b",
    client_options={{"allow_http": True}}, retry_config={{"max_retries": 0}})
guard.objects(store, "shared").open(FakeLease(9)).write(b"new")
"""
    older = guard.objects(s3(endpoint), "shared").open(FakeLease(3))
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ)

    with pytest.raises(StaleFence):
        older.write(b"late")


def test_the_command_shows_it_and_leaves_nothing(endpoint, monkeypatch, capsys):
    store = s3(endpoint)
    before = [each["path"] for page in store.list() for each in page]
    environ = {
        "ENDPOINT_URL": endpoint,
        "ALLOW_HTTP": "true",
        "ACCESS_KEY_ID": "a",
        "SECRET_ACCESS_KEY": "b",
        "REGION": "us-east-1",
    }
    for name, value in environ.items():
        monkeypatch.setenv(f"AWS_{name}", value)

    assert run(["guard", "check", "s3://guarded/folder"]) == 0
    assert capsys.readouterr().out.count("\nok ") == 6
    assert [each["path"] for page in store.list() for each in page] == before
