"""The base classes of stores: what may be left out, and what is said then."""

from __future__ import annotations

import pickle
import threading

import pytest

import lockkit
from lockkit.errors import CapabilityError, PluginError
from lockkit.facts import Capabilities
from lockkit.hooks import hookimpl
from lockkit.store.base import CALLS, BasicBackend, LeftOut, missing
from lockkit.store.spi import Backend, BackendSpec, OpenOptions, Refused
from lockkit.testing.claims import claim
from lockkit_memory.backend import open_store

CAPABILITIES = Capabilities(scope="process")
FIVE = ("acquire", "renew", "release", "inspect", "close")
REFUSED = {
    "extend": lambda client: client.lock("a").try_acquire().extend(60),
    "names": lambda client: client.names(),
    "evict": lambda client: client.evict("a", "0" * 12, reason="test"),
    "resize": lambda client: client.resize("a", 3),
    "annotate": lambda client: client.annotate("a", "0" * 12, {"why": 1}),
    "put_record": lambda client: client.put_record("a", {"of": 1}, 0),
}


def made(lacking=()):
    """A store whose five calls are those of a memory store, without some of them."""
    memory = open_store(f"memory://base-{id(object())}", OpenOptions())
    calls = {name: staticmethod(getattr(memory, name)) for name in FIVE if name not in lacking}
    return type("Mine", (BasicBackend,), {"capabilities": CAPABILITIES, **calls})


@pytest.fixture
def connected():
    """A client of a store."""
    clients = []

    def connect(opened):
        class Plugin:
            @hookimpl
            def lockkit_backends(self):
                return [BackendSpec("mine", ("mine",), lambda url, options: opened(), "mine", CAPABILITIES)]

        clients.append(lockkit.connect("mine://here", plugins=[Plugin()]))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def test_the_calls_are_those_of_the_interface():
    declared = {name for name, value in vars(Backend).items() if callable(value) and not name.startswith("_")}

    assert declared == set(CALLS)
    assert CALLS[:5] == FIVE


def test_with_five_calls_a_lock_is_taken_waited_for_and_released(connected):
    client = connected(made())
    lock = client.lock("a")
    granted = []

    with lock.acquire() as lease:
        assert lock.try_acquire() is None
        waiting = threading.Thread(target=lambda: granted.append(lock.acquire(10.0)))
        waiting.start()
        lease.confirm()
    waiting.join(30.0)

    (successor,) = granted
    assert successor.fence > lease.fence
    assert successor.release().outcome == "RELEASED"
    assert client.inspect("a").claims == ()
    assert client.record("a") is None


@pytest.mark.parametrize("call", REFUSED)
def test_a_call_that_is_left_out_is_refused_by_its_name(connected, call):
    client = connected(made())

    with pytest.raises(CapabilityError, match=rf"has no {call} \(.*Mine leaves it out"):
        REFUSED[call](client)


def test_the_error_crosses_processes():
    error = LeftOut("this store has no evict", hint="use another")

    assert repr(pickle.loads(pickle.dumps(error))) == repr(error)


def test_what_is_refused_is_what_doctor_reports(connected):
    (finding,) = connected(made()).check()

    assert finding.severity == "warning"
    assert finding.message == f"this store has no {', '.join(REFUSED)}"


def test_an_eviction_needs_no_notes(connected):
    memory = open_store("memory://base-evict", OpenOptions())
    kind = type("Evicting", (made(),), {"evict": staticmethod(memory.evict)})

    assert connected(kind).evict("a", "0" * 12, reason="test").outcome == "ABSENT"


def test_abandon_and_an_emergency_are_a_release_where_they_are_left_out():
    store = made()()
    for end in (store.abandon, store.emergency_release):
        one = claim()
        store.acquire(one, True, 2.0)
        assert (end(one, 2.0), end(one, 2.0)) == ("RELEASED", "ABSENT")


@pytest.mark.parametrize("call", FIVE)
def test_a_store_without_one_of_the_five_is_not_made_and_the_error_names_it(call):
    with pytest.raises(TypeError, match=rf"abstract method.*\b{call}\b"):
        made(lacking=[call])()


def test_a_store_that_derives_from_nothing_is_told_all_that_it_lacks(connected):
    class Mine:
        capabilities = CAPABILITIES
        acquire = renew = release = inspect = close = lambda *_: None

    lacks = missing(Mine())
    assert lacks == ["extras", *CALLS[5:]]
    with pytest.raises(PluginError, match=f"the store mine has no {', '.join(lacks)}") as told:
        connected(Mine).inspect("a")
    assert "BasicBackend" in told.value.hint


def test_a_refusal_is_definite_and_final():
    with pytest.raises(Refused) as told:
        made()().names("", 2.0)

    assert isinstance(told.value.error, LeftOut)
    assert told.value.retry is False
