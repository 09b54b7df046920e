"""The gate before a Redis key: contract, Lua rule, lost updates and replies, late copies, rights, Cluster."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("redis")

import redis

from lockkit import guard
from lockkit.cli.main import run
from lockkit.errors import (
    BackendError,
    BackendUnavailable,
    ConfigError,
    IncompatibleLayout,
    OutcomeUnknown,
    PermissionDenied,
    StaleFence,
)
from lockkit.guard import FenceGate, on_redis
from lockkit.guard.on_redis import RedisKey, record_key
from lockkit.guard.record import LONGEST, Record, judged
from lockkit.store.spi import Unknown
from support.guards import FakeLease, lost, lost_in_some_run
from support.guards.bytewise import Bytewise
from support.guards.contract import GateContract
from support.guards.faults import outcomes
from support.servers.redis import RedisServer
from support.servers.redis_groups import RedisCluster
from support.servers.started import started

PAGE = Path(__file__).parents[2] / "docs/howto/guards.md"
RIGHTS = "user writer on >secret resetkeys ~stock:42 ~{stock:42}.lockkit-fence -@all +eval +get +set"
"""Each writer of stock:42 needs these; the page on guards shows the same line."""


running = started(RedisServer, user=[RIGHTS.removeprefix("user ")])


@pytest.fixture
def client(running):
    running.cli("FLUSHALL")
    with contextlib.closing(redis.Redis.from_url(running.url())) as made:
        yield made


class TestContract(GateContract):
    @pytest.fixture(params=["bytes", "texts", "resp3"])
    def make(self, running, client, request):
        more = {"bytes": {}, "texts": {"decode_responses": True}, "resp3": {"protocol": 3}}[request.param]
        with contextlib.closing(redis.Redis.from_url(running.url(), **more)) as made:
            yield partial(guard.redis, made, "stock:42")


def test_a_key_of_another_type_is_refused_and_stays(client):
    client.rpush("stock:42", "a")
    gate = guard.redis(client, "stock:42")
    with pytest.raises(IncompatibleLayout, match="WRONGTYPE"):
        gate.open(FakeLease(3))
    assert client.keys() == [b"stock:42"]

    client.delete("stock:42")
    guarded = gate.open(FakeLease(3))
    client.rpush("stock:42", "a")
    with pytest.raises(IncompatibleLayout, match="WRONGTYPE"):
        guarded.write(b"7")
    assert client.lrange("stock:42", 0, -1) == [b"a"]


def test_the_value_stands_in_the_key_itself(client):
    guard.redis(client, "stock:42").open(FakeLease(3)).write(b"7")

    assert client.get("stock:42") == b"7"
    assert sorted(client.keys()) == [b"stock:42", b"{stock:42}.lockkit-fence"]
    assert client.ttl("{stock:42}.lockkit-fence") == -1


# -- the rule, in Lua

OPENINGS = ["0" * 16, "f" * 16]
records = st.builds(
    Record,
    st.integers(1, 3) | st.integers(1, LONGEST) | st.integers(10**10 - 2, 10**10 + 2),
    st.sampled_from(OPENINGS),
    st.integers(0, 2) | st.integers(0, LONGEST),
)


@settings(max_examples=150)
@given(stored=st.none() | records, asked=records)
def test_the_script_decides_as_python_does(running, stored, asked):
    with running.connect() as client:
        client.delete("a", "{a}.lockkit-fence")
        if stored is not None:
            client.set("{a}.lockkit-fence", str(stored))
        key = RedisKey(client, "a")
        expected = judged(stored, asked)

        answer = key.step(asked, b"new" if asked.step else None, 0.0)

        assert answer == ((stored or Record(0, "")) if expected == "STALE" else None)
        assert client.get("{a}.lockkit-fence") == (
            str(asked).encode() if expected == "APPLY" else stored and str(stored).encode()
        )
        assert client.get("a") == (b"new" if expected == "APPLY" and asked.step else None)


# -- no lost update


class Pausing(RedisKey):
    """A key whose holder may be paused before each request."""

    def __init__(self, client, key, pause):
        super().__init__(client, key)
        self.pause = pause

    def _ask(self, *command):
        self.pause()
        return super()._ask(*command)


class TwoSteps(Pausing):
    """A gate that compares in one request and writes in another."""

    def step(self, asked, value, end):
        stored = self._ask("GET", self._keys[0])
        record = None if stored is None else Record.of(stored.decode())
        if judged(record, asked) == "STALE":
            return record
        self._ask("SET", self._keys[0], str(asked))
        if value is not None:
            self._ask("SET", self._keys[1], value)
        return None


class Blind(Pausing):
    """A gate that reads without a look at the record."""

    def step(self, asked, value, end):
        self.asked = asked
        return super().step(asked, value, end)

    def look(self, end):
        return self.asked, super().look(end)[1]


def counter(client, kind=Pausing):
    return Bytewise(lambda key, pause: FenceGate(kind(client, key, pause)), client.get, client.set)


def test_an_unguarded_key_loses_updates(client):
    assert lost_in_some_run(counter(client), guarded=False)


def test_a_guarded_key_loses_none(client):
    assert not lost_in_some_run(counter(client))


@settings(max_examples=40)
@given(schedule=st.lists(st.integers(0, 5), max_size=30))
def test_a_guarded_key_loses_none_among_three_holders(running, schedule):
    with running.connect() as client:
        client.flushall()
        assert lost(counter(client), schedule, holders=3) == 0


def test_the_schedules_kill_a_gate_that_compares_and_then_writes(client):
    assert lost_in_some_run(counter(client, TwoSteps))


@pytest.fixture
def mutant(monkeypatch):
    """Change the script."""

    def change(*places):
        wrong = on_redis._script("step").decode()
        for before, after in places:
            assert before in wrong
            wrong = wrong.replace(before, after)
        scripts = {"step": wrong.encode(), "look": on_redis._script("look")}
        monkeypatch.setattr(on_redis, "_script", scripts.__getitem__)

    return change


def test_the_schedules_kill_a_gate_that_does_not_compare(client, mutant):
    mutant(("return {'STALE'", "local ignored = {'STALE'"))

    assert lost_in_some_run(counter(client))


def test_the_schedules_kill_a_gate_that_registers_only_when_it_writes(client, mutant):
    mutant(
        ("elseif value then\n  return {'STALE', stored or ''}\n", ""),
        (
            "\nredis.call('SET', KEYS[1], fence .. '.' .. opening .. '.' .. step)",
            "\nif value then redis.call('SET', KEYS[1], fence .. '.' .. opening .. '.' .. step) end",
        ),
    )

    assert lost_in_some_run(counter(client, Blind))  # a look would see that nothing is registered


def test_the_contract_kills_a_gate_that_wants_a_higher_fence(client, mutant):
    mutant(("elseif stored and before(fence, known) then", "elseif stored and not before(known, fence) then"))

    with pytest.raises(StaleFence):
        TestContract().test_the_same_lease_may_open_again(partial(guard.redis, client, "a"))


# -- answers that do not come


class Silent(RedisKey):
    """A key whose next answers are lost, after the server has done what was asked."""

    lost = 0
    between = staticmethod(lambda: None)

    def _ask(self, *command):
        answer = super()._ask(*command)
        if self.lost:
            self.lost -= 1
            self.between()
            raise Unknown(OutcomeUnknown("no answer"))
        return answer


def test_a_write_without_an_answer_is_repeated_and_takes_effect_once(client):
    key = Silent(client, "a")
    guarded = FenceGate(key).open(FakeLease(3))
    key.lost = 2

    guarded.write(b"one")

    assert client.get("a") == b"one"
    assert client.get("{a}.lockkit-fence").endswith(b"00001")


def test_a_write_without_any_answer_is_unknown(client):
    key = Silent(client, "a")
    guarded = FenceGate(key, timeout=1.0).open(FakeLease(3))
    key.lost = 1000

    with pytest.raises(OutcomeUnknown, match="there was no answer"):
        guarded.write(b"one")


def test_a_write_whose_answer_a_newer_holder_has_overtaken_is_unknown(client):
    """The first request was done, its repetition refused: reporting the write as refused would be wrong."""
    key = Silent(client, "a")
    guarded = FenceGate(key).open(FakeLease(3))
    newer = []
    key.between = lambda: newer.append(guard.redis(client, "a").open(FakeLease(4)).read())
    key.lost = 1

    with pytest.raises(OutcomeUnknown, match="a newer holder has opened it since"):
        guarded.write(b"one")
    assert newer == [b"one"]


def test_a_late_copy_of_a_write_changes_nothing(client):
    key = RedisKey(client, "a")
    guarded = FenceGate(key).open(FakeLease(3))
    guarded.write(b"one")
    first = guarded._record
    guarded.write(b"two")

    assert key.step(first, b"one", 0.0) is None

    assert client.get("a") == b"two"


def test_a_server_that_is_gone_is_an_error_within_the_time(client):
    guarded = guard.redis(client, "a", timeout=1.5).open(FakeLease(3))
    with RedisServer() as other, contextlib.closing(redis.Redis.from_url(other.url())) as gone:
        gate = guard.redis(gone, "a", timeout=1.5)
        cut = gate.open(FakeLease(3))
        other.kill()
        with pytest.raises(BackendError):
            cut.write(b"late")
        with pytest.raises(BackendError):
            gate.open(FakeLease(4))
    guarded.write(b"fine")


def test_the_client_repeats_nothing_behind_the_back_of_the_gate(running):
    """redis-py repeats a command after an error, and its answer would then be that to the second copy."""
    with contextlib.closing(redis.Redis.from_url(running.url())) as client:
        client.ping()
        sent = []
        kind = client.connection_pool.connection_class
        right, reads = kind.send_command, kind.read_response
        try:
            kind.send_command = lambda self, *words, **more: (
                sent.append(words[0]) or right(self, *words, **more)
            )
            kind.read_response = _no_answer
            with pytest.raises(Unknown):
                RedisKey(client, "a")._ask("GET", "a")
        finally:
            kind.send_command, kind.read_response = right, reads
    assert sent.count("GET") == 1


def _no_answer(self, *words, **more):
    raise redis.exceptions.ConnectionError("cut")


# -- a bad network


NETWORKS = {
    "schedule": st.lists(st.integers(0, 5), max_size=30),
    "faults": st.lists(st.integers(0, 9), max_size=15),
}


@settings(max_examples=60)
@given(**NETWORKS)
def test_on_a_bad_network_what_was_written_stays_and_what_was_refused_is_not_there(running, schedule, faults):
    with running.connect() as client:
        client.flushall()
        found = outcomes(lambda: RedisKey(client, "a"), schedule, faults)
        assert found.fit(int(client.get("a") or 0))


def test_a_bad_network_kills_a_gate_that_lets_a_late_request_in(client, mutant):
    mutant(("if not before(done, step) then return {'DONE', stored} end", ""))

    # A copy of the first write arrives last.
    found = outcomes(lambda: RedisKey(client, "a"), [], [0, 3], holders=1)
    assert not found.fit(int(client.get("a")))


# -- refusals


def test_the_rights_in_the_docs_are_enough_and_one_less_is_named(running, client):
    assert f"\n{RIGHTS}\n" in PAGE.read_text()
    url = running.url(user="writer", password="secret")
    with contextlib.closing(redis.Redis.from_url(url)) as writer:
        guard.redis(writer, "stock:42").open(FakeLease(3)).write(b"7")
        with pytest.raises(PermissionDenied, match="EVAL, GET and SET"):
            guard.redis(writer, "stock:43").open(FakeLease(3))


def test_an_error_that_nobody_knows_is_no_refusal(client):
    """A proxy may report one after the script has run."""
    with pytest.raises(Unknown):
        RedisKey(client, "a")._ask("EVAL", "return redis.error_reply('ERR upstream failure')", 0)


def test_a_server_that_takes_no_writes_now_is_asked_again_and_then_named(running, client):
    gate = guard.redis(client, "a", timeout=1.0)
    running.cli("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(BackendUnavailable, match="read only"):
            gate.open(FakeLease(3))
    finally:
        running.cli("REPLICAOF", "NO", "ONE")
    gate.open(FakeLease(3))


def test_a_server_without_memory_is_named(running, client):
    running.cli("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(BackendUnavailable, match="maxmemory"):
            guard.redis(client, "a").open(FakeLease(3))
    finally:
        running.cli("CONFIG", "SET", "maxmemory", "0")


def test_a_login_that_is_wrong_is_named(running):
    with (
        contextlib.closing(redis.Redis.from_url(running.url(user="writer", password="wrong"))) as client,
        pytest.raises(PermissionDenied),
    ):
        guard.redis(client, "stock:42").open(FakeLease(3))


def test_the_command_shows_it_and_leaves_nothing(running, client, capsys):
    assert run(["guard", "check", running.url()]) == 0
    assert capsys.readouterr().out.count("\nok ") == 6
    assert client.keys() == []


def test_what_is_no_record_is_not_written_over(client):
    client.set("{a}.lockkit-fence", "mine")
    with pytest.raises(IncompatibleLayout):
        guard.redis(client, "a").open(FakeLease(3))

    client.hset("{b}.lockkit-fence", "x", 1)
    with pytest.raises(IncompatibleLayout):
        guard.redis(client, "b").open(FakeLease(3))
    assert client.get("{a}.lockkit-fence") == b"mine"


@pytest.mark.parametrize("key", ["", "a}b", "{}a", "x" * 5000, 7, None])
def test_a_key_that_cannot_be_guarded_is_refused(client, key):
    with pytest.raises(ConfigError):
        guard.redis(client, key)


def test_another_client_is_refused():
    import redis.asyncio

    for wrong in (object(), redis.asyncio.Redis(port=1)):
        with pytest.raises(ConfigError, match="synchronous client"):
            guard.redis(wrong, "a")


# -- a Cluster


@pytest.mark.parametrize("key", [b"a", b"{tag}rest", b"x{tag}y{z}", b"a{b", b"\xff"])
def test_both_keys_are_in_one_slot(key):
    from redis.crc import key_slot

    assert key_slot(key) == key_slot(record_key(key))


def test_a_key_of_a_cluster_is_guarded_also_after_it_has_moved():
    with RedisCluster() as cluster:
        from redis.cluster import RedisCluster as Client

        host, port = cluster.nodes[0].address.split(":")
        with contextlib.closing(Client(host=host, port=int(port))) as client:
            gates = {key: guard.redis(client, key) for key in ("a", "b", "c", "d")}
            older = {key: gate.open(FakeLease(3)) for key, gate in gates.items()}
            for guarded in older.values():
                guarded.write(b"one")
            newer = {key: gate.open(FakeLease(4)) for key, gate in gates.items()}
            for key in gates:
                with pytest.raises(StaleFence):
                    older[key].write(b"late")
                assert newer[key].read() == b"one"
                assert client.get(key) == b"one"

            source = cluster.node_of("a")
            target = next(node for node in cluster.nodes if node is not source)
            cluster.move(source.cli("CLUSTER", "KEYSLOT", "a"), source, target)

            with pytest.raises(StaleFence):
                older["a"].write(b"late")
            newer["a"].write(b"two")
            assert newer["a"].read() == b"two"
        assert run(["guard", "check", cluster.url()]) == 0
