"""The gate before a key of etcd: the contract, no lost update, lost answers, rights, TLS, other clients."""

from __future__ import annotations

import os
import socket
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockkit import guard
from lockkit.cli.main import run
from lockkit.errors import (
    BackendUnavailable,
    ConfigError,
    IncompatibleLayout,
    OutcomeUnknown,
    PermissionDenied,
    StaleFence,
)
from lockkit.guard import FenceGate, swapping
from lockkit.guard.on_etcd import EtcdKey, text_of
from lockkit.guard.swapping import Swapping
from lockkit.store.spi import Refused, Unknown
from lockkit.testing.processes import free_port, installed
from lockkit_etcd.guarding import Transactions as Gateway
from support.guards import FakeLease, lost, lost_in_some_run
from support.guards.bytewise import Bytewise
from support.guards.contract import GateContract
from support.guards.mutants import Blind, never_stale, wants_a_higher_fence
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import EtcdUser, covered
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")


running = started(EtcdServer)


@pytest.fixture
def server(running):
    running.call("kv/deleterange", covered(""))
    return running


class TestContract(GateContract):
    @pytest.fixture
    def make(self, server):
        return partial(guard.etcd, server.url(), "config/main")


def read(server, key):
    found = server.call("kv/range", {"key": key.encode()}).get("kvs", [])
    return b64decode(found[0].get("value", "")) if found else None


def test_the_value_stands_in_the_key_itself(server):
    guard.etcd(server.url(), "config/main").open(FakeLease(3)).write(b"7")

    assert read(server, "config/main") == b"7"


# -- no lost update


class Pausing(Gateway):
    """A gateway whose holder may be paused before each request, and whose answers may be lost."""

    def __init__(self, url, pause=lambda: None):
        super().__init__(url)
        self.pause = pause
        self.lost = 0
        self.between = lambda: None

    def transaction(self, txn, /):
        self.pause()
        answer = super().transaction(txn)
        if self.lost and "compare" in txn:
            self.lost -= 1
            self.between()
            raise ConnectionError("the answer was lost")
        return answer


class TwoSteps(EtcdKey):
    """A gate that compares when it reads, and then writes whatever the revision is."""

    def swap(self, found, record, value, end):
        self._send(
            {
                "success": [
                    {"request_put": {"key": text_of(self._record), "value": text_of(str(record).encode())}}
                ]
            }
        )
        if value is not None:
            self._send({"success": [{"request_put": {"key": text_of(self._value), "value": text_of(value)}}]})
        return found._replace(record=record)


def counter(server, kind=EtcdKey):
    return Bytewise(
        lambda key, pause: FenceGate(Swapping(kind(Pausing(server.url(), pause), key))),
        partial(read, server),
        lambda key, value: server.call("kv/put", {"key": key.encode(), "value": value}),
    )


def test_an_unguarded_key_loses_updates(server):
    assert lost_in_some_run(counter(server), guarded=False)


def test_a_guarded_key_loses_none(server):
    assert not lost_in_some_run(counter(server))


@settings(max_examples=20)
@given(schedule=st.lists(st.integers(0, 5), max_size=30))
def test_a_guarded_key_loses_none_among_three_holders(running, schedule):
    running.call("kv/deleterange", covered(""))
    assert lost(counter(running), schedule, holders=3) == 0


def test_the_schedules_kill_a_gate_that_compares_and_then_writes(server):
    assert lost_in_some_run(counter(server, TwoSteps))


def test_the_schedules_kill_a_gate_that_does_not_compare(server, monkeypatch):
    monkeypatch.setattr(swapping, "judged", never_stale)

    assert lost_in_some_run(counter(server, BlindKey))


class BlindKey(Blind, EtcdKey):
    """A gate that reads without a look at the record."""


def test_the_contract_kills_a_gate_that_wants_a_higher_fence(server, monkeypatch):
    monkeypatch.setattr(swapping, "judged", wants_a_higher_fence)

    with pytest.raises(StaleFence):
        TestContract().test_the_same_lease_may_open_again(partial(guard.etcd, server.url(), "a"))


# -- answers that do not come


def test_a_write_without_an_answer_is_repeated_and_takes_effect_once(server):
    gateway = Pausing(server.url())
    guarded = guard.etcd(gateway, "a").open(FakeLease(3))
    gateway.lost = 1

    guarded.write(b"one")
    guarded.write(b"two")

    assert guard.etcd(server.url(), "a").peek() == (3, b"two")


def test_a_write_whose_answer_a_newer_holder_has_overtaken_is_unknown(server):
    gateway = Pausing(server.url())
    guarded = guard.etcd(gateway, "a").open(FakeLease(3))
    newer = []
    gateway.between = lambda: newer.append(guard.etcd(server.url(), "a").open(FakeLease(4)).read())
    gateway.lost = 1

    with pytest.raises(OutcomeUnknown, match="a newer holder has opened it since"):
        guarded.write(b"one")
    assert newer == [b"one"]


def test_a_late_copy_of_a_write_changes_nothing(server):
    sent = []

    class Kept(Gateway):
        def transaction(self, txn, /):
            sent.append(txn)
            return super().transaction(txn)

    guarded = guard.etcd(Kept(server.url()), "a").open(FakeLease(3))
    guarded.write(b"one")
    copy = sent[-1]
    guarded.write(b"two")

    assert not Gateway(server.url()).transaction(copy).get("succeeded")

    assert guarded.read() == b"two"


def test_a_member_that_cannot_be_reached_is_passed_over(server):
    url = f"etcd://127.0.0.1:{free_port()},127.0.0.1:{server.port}"

    guard.etcd(url, "a").open(FakeLease(3)).write(b"one")

    with pytest.raises(BackendUnavailable, match="cannot reach"):
        guard.etcd(f"etcd://127.0.0.1:{free_port()}", "a", timeout=0.1).open(FakeLease(3))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}}", b"SSH-2.0\r\n"])
def test_a_request_that_was_sent_and_not_answered_is_unknown(answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            link, _ = listener.accept()
            with link:
                link.recv(65536)
                link.sendall(answer)

        with ThreadPoolExecutor(1) as threads:
            served = threads.submit(serve)
            with pytest.raises(Unknown):
                Gateway(f"etcd://127.0.0.1:{listener.getsockname()[1]}").transaction({"success": []})
            served.result()


REFUSED = b'{"code":12,"message":"etcdserver: rpc not supported for learner"}'


def test_what_is_a_definite_refusal_to_a_store_is_one_to_a_guard():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            link, _ = listener.accept()
            with link:
                link.recv(65536)
                link.sendall(b"HTTP/1.1 501 No\r\nContent-Length: %d\r\n\r\n%b" % (len(REFUSED), REFUSED))

        with ThreadPoolExecutor(1) as threads:
            served = threads.submit(serve)
            with pytest.raises(Refused, match="it is a learner"):
                Gateway(f"etcd://127.0.0.1:{listener.getsockname()[1]}").transaction({"success": []})
            served.result()


def test_a_gate_that_was_made_before_a_fork_serves_the_child(server):
    gate = guard.etcd(server.url(), "a")
    gate.open(FakeLease(3)).write(b"parent")

    child = os.fork()
    if not child:
        code = 1
        try:
            gate.open(FakeLease(4)).write(b"child")
            code = 0
        finally:
            os._exit(code)

    assert os.waitpid(child, 0)[1] == 0
    assert read(server, "a") == b"child"


# -- rights and refusals


def test_the_rights_in_the_docs_are_enough_and_one_less_is_named():
    writer = EtcdUser("writer", "secret", {"config/": "READWRITE"})
    with EtcdServer(users=[writer]) as server:
        url = server.url("writer", "secret")
        gate = guard.etcd(url, "config/main")
        guarded = gate.open(FakeLease(3))
        guarded.write(b"one")
        with pytest.raises(PermissionDenied, match="readwrite"):
            guard.etcd(url, "elsewhere").open(FakeLease(3))
        with pytest.raises(PermissionDenied, match="user name or password is wrong"):
            guard.etcd(server.url("writer", "wrong"), "config/main").open(FakeLease(3))
        with pytest.raises(PermissionDenied):
            guard.etcd(server.url(), "config/main").open(FakeLease(3))

        guarded._resource.under._client._token = "expired.1"
        guarded.write(b"two")
        assert gate.peek() == (3, b"two")


def test_a_server_with_tls_is_asked_over_tls():
    with EtcdServer(tls=True) as server:
        url = f"{server.url()}?ca_file={server.certificates.ca}"
        guard.etcd(url, "a").open(FakeLease(3)).write(b"one")


def test_the_command_shows_it_and_leaves_nothing(server, capsys):
    assert run(["guard", "check", server.url()]) == 0
    assert capsys.readouterr().out.count("\nok ") == 6
    assert not server.call("kv/range", covered("")).get("kvs")


def test_what_is_no_record_is_not_written_over(server):
    server.call("kv/put", {"key": b"a.lockkit-fence", "value": b"mine"})

    with pytest.raises(IncompatibleLayout):
        guard.etcd(server.url(), "a").open(FakeLease(3))


@pytest.mark.parametrize(
    "client, key",
    [
        ("etcd://a", ""),
        ("etcd://a", 7),
        ("redis://a", "a"),
        ("etcd://a/b", "a"),
        ("etcd://a?x=1", "a"),
        (object(), "a"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_sent(client, key):
    with pytest.raises(ConfigError):
        guard.etcd(client, key)
