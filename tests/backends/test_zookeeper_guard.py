"""The gate before a node of ZooKeeper: the contract, no lost update, lost answers, rights."""

from __future__ import annotations

import contextlib
import time
from functools import partial

import pytest

pytest.importorskip("kazoo")

from hypothesis import given, settings
from hypothesis import strategies as st
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

from lockkit import guard
from lockkit.cli.main import run
from lockkit.errors import (
    BackendError,
    ConfigError,
    IncompatibleLayout,
    OutcomeUnknown,
    PermissionDenied,
    StaleFence,
)
from lockkit.guard import FenceGate, swapping
from lockkit.guard.on_zookeeper import ZooKeeperNode
from lockkit.guard.record import Record
from lockkit.guard.swapping import Swapping
from lockkit.store.spi import Unknown
from support.guards import FakeLease, lost, lost_in_some_run
from support.guards.bytewise import Bytewise
from support.guards.contract import GateContract
from support.guards.mutants import Blind, never_stale, wants_a_higher_fence
from support.servers.started import started
from support.servers.zookeeper import ZooKeeperServer

server = started(ZooKeeperServer, tick=0.2)


@contextlib.contextmanager
def started(server, **more):
    client = KazooClient(f"127.0.0.1:{server.place.port}", **more)
    client.start()
    try:
        yield client
    finally:
        client.stop()
        client.close()


@pytest.fixture(scope="module")
def connected(server):
    with started(server) as client:
        yield client


@pytest.fixture
def client(connected):
    if connected.exists("/app"):
        connected.delete("/app", recursive=True)
    connected.create("/app")
    return connected


class TestContract(GateContract):
    @pytest.fixture
    def make(self, client):
        return partial(guard.zookeeper, client, "/app/config")


def read(client, key):
    path = f"/app/{key}"
    return client.get(path)[0] if client.exists(path) else None


def write(client, key, value):
    path = f"/app/{key}"
    client.set(path, value) if client.exists(path) else client.create(path, value)


# -- no lost update


class Pausing(ZooKeeperNode):
    """A node whose holder may be paused before each request, and whose answers may be lost."""

    lost = 0

    def __init__(self, client, path, pause=lambda: None):
        super().__init__(client, path)
        self.pause = pause
        self.between = lambda: None

    def _done(self, request, end):
        answer = super()._done(request, end)
        self.pause()
        return answer

    def swap(self, found, record, value, end):
        written = super().swap(found, record, value, end)
        if self.lost:
            self.lost -= 1
            self.between()
            raise Unknown(OutcomeUnknown("the answer was lost"))
        return written


class TwoSteps(Pausing):
    """A gate that compares when it reads, and then writes whatever the version is."""

    def swap(self, found, record, value, end):
        return super().swap(
            found if found.version is None else found._replace(version=found.version._replace(number=-1)),
            record,
            value,
            end,
        )


class BlindKey(Blind, Pausing):
    """A gate that reads without a look at the record."""


def counter(client, kind=Pausing):
    return Bytewise(
        lambda key, pause: FenceGate(Swapping(kind(client, f"/app/{key}", pause))),
        partial(read, client),
        partial(write, client),
    )


def test_an_unguarded_node_loses_updates(client):
    assert lost_in_some_run(counter(client), guarded=False)


def test_a_guarded_node_loses_none(client):
    assert not lost_in_some_run(counter(client))


@settings(max_examples=20)
@given(schedule=st.lists(st.integers(0, 5), max_size=30))
def test_a_guarded_node_loses_none_among_three_holders(connected, schedule):
    connected.delete("/app", recursive=True)
    connected.create("/app")
    assert lost(counter(connected), schedule, holders=3) == 0


def test_the_schedules_kill_a_gate_that_compares_and_then_writes(client):
    assert lost_in_some_run(counter(client, TwoSteps))


def test_the_schedules_kill_a_gate_that_does_not_compare(client, monkeypatch):
    monkeypatch.setattr(swapping, "judged", never_stale)

    assert lost_in_some_run(counter(client, BlindKey))


def test_the_contract_kills_a_gate_that_wants_a_higher_fence(client, monkeypatch):
    monkeypatch.setattr(swapping, "judged", wants_a_higher_fence)

    with pytest.raises(StaleFence):
        TestContract().test_the_same_lease_may_open_again(partial(guard.zookeeper, client, "/app/config"))


# -- a record that was removed and made again


def test_a_record_made_again_after_it_was_read_is_not_written(client):
    """The version is the same as that of the record that was read."""
    made_again = []

    def make_again():
        gate = guard.zookeeper(client, "/app/a")
        gate.resource.forget()
        made_again.append(gate.open(FakeLease(4)))

    node = Pausing(client, "/app/a")
    guarded = FenceGate(Swapping(node)).open(FakeLease(3))
    found = node.find(time.monotonic() + 5.0)
    make_again()

    assert node.swap(found, found.record._replace(step=1), b"stale", time.monotonic() + 5.0) is None
    with pytest.raises(StaleFence):
        guarded.write(b"stale")
    assert made_again[0].read() is None


def test_a_record_made_again_while_it_is_read_is_not_written(client):
    node = Pausing(client, "/app/a")
    FenceGate(Swapping(node)).open(FakeLease(3))
    steps = 0
    while True:
        paused, at = [], iter(range(100))

        def pause(paused=paused, at=at, steps=steps):
            if next(at) == steps:
                gate = guard.zookeeper(client, "/app/a")
                gate.resource.forget()
                paused.append(gate.open(FakeLease(4)))

        node.pause = pause
        found = node.find(time.monotonic() + 5.0)
        node.pause = lambda: None
        if not paused:
            break
        swapped = node.swap(found, Record(3, "0" * 16, 1), b"stale", time.monotonic() + 5.0)
        assert swapped is None or found.record.fence == 4, f"made again after answer {steps}"
        steps += 1
        node.forget()
        FenceGate(Swapping(node)).open(FakeLease(3))
    assert steps


# -- answers that do not come


def test_a_write_without_an_answer_is_repeated_and_takes_effect_once(client):
    node = Pausing(client, "/app/a")
    guarded = FenceGate(Swapping(node)).open(FakeLease(3))
    node.lost = 1

    guarded.write(b"one")

    assert client.get("/app/a")[1].version == 0
    assert guarded.read() == b"one"


def test_a_write_whose_answer_a_newer_holder_has_overtaken_is_unknown(client):
    node = Pausing(client, "/app/a")
    guarded = FenceGate(Swapping(node)).open(FakeLease(3))
    newer = []
    node.between = lambda: newer.append(guard.zookeeper(client, "/app/a").open(FakeLease(4)).read())
    node.lost = 1

    with pytest.raises(OutcomeUnknown, match="a newer holder has opened it since"):
        guarded.write(b"one")
    assert newer == [b"one"]


def test_a_client_that_is_not_started_is_named(server, client):
    stopped = KazooClient(f"127.0.0.1:{server.place.port}")

    with pytest.raises(BackendError):
        guard.zookeeper(stopped, "/app/a", timeout=0.2).open(FakeLease(3))
    stopped.close()


# -- rights and refusals


def test_a_node_without_a_parent_is_refused(client):
    with pytest.raises(BackendError, match="has no parent"):
        guard.zookeeper(client, "/app/missing/a").open(FakeLease(3))


def test_the_rights_in_the_docs_are_enough_and_one_less_is_named(server, client):
    login = ("digest", "writer:secret")
    client.set_acls("/app", [make_digest_acl("writer", "secret", create=True)])
    with started(
        server,
        auth_data=[login],
        default_acl=[make_digest_acl("writer", "secret", read=True, write=True, create=True)],
    ) as writer:
        guarded = guard.zookeeper(writer, "/app/a").open(FakeLease(3))
        guarded.write(b"one")
        guarded.write(b"two")
        assert guarded.read() == b"two"

        with pytest.raises(PermissionDenied, match="read, write and create"):
            guard.zookeeper(client, "/app/a").open(FakeLease(4))
        with pytest.raises(PermissionDenied, match="create on their parent"):
            guard.zookeeper(client, "/app/b").open(FakeLease(4))
    _open_again(server)


def _open_again(server):
    from kazoo.security import OPEN_ACL_UNSAFE

    with server.connect() as admin:
        admin.delete("/app", recursive=True)
        admin.create("/app", acl=OPEN_ACL_UNSAFE)


def test_the_command_shows_it_and_leaves_nothing(server, client, capsys):
    assert run(["guard", "check", f"zookeeper://127.0.0.1:{server.place.port}/app"]) == 0
    assert capsys.readouterr().out.count("\nok ") == 6
    assert client.get_children("/app") == []


def test_what_is_no_record_is_not_written_over(client):
    client.create("/app/a.lockkit-fence", b"mine")

    with pytest.raises(IncompatibleLayout):
        guard.zookeeper(client, "/app/a").open(FakeLease(3))


@pytest.mark.parametrize("path", ["", "a", "/", "/a/", "/a//b", "/a/../b", "/a\0", 7, "/" + "x" * 5000])
def test_what_is_no_path_is_refused(client, path):
    with pytest.raises(ConfigError):
        guard.zookeeper(client, path)


def test_another_client_is_refused():
    with pytest.raises(ConfigError, match="client of kazoo"):
        guard.zookeeper(object(), "/a")
