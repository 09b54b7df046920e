"""Habits from other libraries are answered with what to write here, and change nothing else."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import subprocess
import sys
from unittest import mock

import pytest

import lockkit
import lockkit.gpu
from lockkit import Client, Lease, Lock, RWLock
from lockkit.aio import AsyncLock
from lockkit.config.settings import SETTINGS
from lockkit.errors import ConfigError
from lockkit.shared.options import Options
from lockkit.values import habit_words
from lockkit.values.habits import HABITUAL


@pytest.fixture
def client(tmp_path):
    with lockkit.connect(f"memory://{tmp_path.name}", state_dir=str(tmp_path)) as client:
        yield client


@pytest.fixture
def lock(client):
    return client.lock("a")


@pytest.mark.parametrize(
    "get, told",
    [
        (lambda client, lock: lock.fence, "lock.lease.fence"),
        (lambda client, lock: lock.valid(), "lock.lease.valid"),
        (lambda client, lock: lock.release(), "lock.lease.release()"),
        (lambda client, lock: lock.locked(), "client.inspect(name).holders"),
        (lambda client, lock: lock.owned(), "lock.held()"),
        (lambda client, lock: lock.reacquire(), "lease.confirm()"),
        (lambda client, lock: client.acquire("a"), "client.lock(name).acquire()"),
        (lambda client, lock: client.mutex("a"), "client.lock(name)"),
        (lambda client, lock: client.rwlock("a").acquire(), "rwlock.read()"),
        (lambda client, lock: lock.acquire().refresh(), "lease.confirm()"),
        (lambda client, lock: lockkit.lock("a"), "client = lockkit.connect(), then client.lock(name)"),
        (lambda client, lock: lockkit.__getattr__("gpu"), "`import lockkit.gpu`"),
    ],
)
@pytest.mark.filterwarnings("ignore:the lease of:ResourceWarning")
def test_a_name_of_another_library_says_what_to_write(client, lock, get, told):
    with pytest.raises(AttributeError, match="has no attribute") as caught:
        get(client, lock)
    assert told in str(caught.value)


def test_with_lock_as_lease_gives_the_lock_which_has_the_lease(lock):
    with lock as lease:
        with pytest.raises(AttributeError, match=r"lock\.lease\.fence"):
            _ = lease.fence
        assert lease.lease.fence > 0


@pytest.mark.parametrize(
    "keywords, told",
    [
        ({"blocking": False}, r"'blocking': lock\.try_acquire\(\)"),
        ({"blocking_timeout": 5}, "'blocking_timeout': it is called timeout"),
        ({"note": {}, "sleep": 0.1}, "'sleep': there is no interval"),
        ({"colour": "red"}, "'colour'$"),
    ],
)
def test_a_keyword_of_another_library_says_what_to_write(lock, keywords, told):
    with pytest.raises(TypeError, match=rf"Lock.acquire\(\) got an unexpected keyword argument {told}"):
        lock.acquire(**keywords)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_bool_is_no_timeout(lock, blocking):
    with pytest.raises(ConfigError, match=r"try_acquire\(\)"):
        lock.acquire(blocking)


def test_an_option_of_another_library_says_what_to_write(client):
    with pytest.raises(ConfigError, match="what redis-py calls timeout is called ttl; the options are: ttl,"):
        client.lock("a", blocking_timeout=5)


WAIT, EXPIRY = "is how long to wait here", "what redis-py calls timeout is called ttl"


@pytest.mark.parametrize("word", ["blocking", "sleep", "thread_local", "raise_on_release_error"])
def test_timeout_beside_a_keyword_of_redis_py_is_refused_with_both_words(client, word):
    """In redis-py the word means when the lock expires, here how long to wait."""
    with pytest.raises(ConfigError, match=rf"timeout=2 {WAIT}, and {EXPIRY}; the options are: ttl,"):
        client.lock("a", **{"timeout": 2, word: False})
    with pytest.raises(ConfigError) as caught:
        client.lock("a", **{word: False})
    assert EXPIRY not in caught.value.hint


@pytest.mark.parametrize("keywords", [{"blocking": False}, {"sleep": 0.1}])
def test_the_timeout_of_a_lock_is_explained_where_its_acquire_has_keywords_of_redis_py(client, keywords):
    with pytest.raises(TypeError, match=rf"timeout=2.0 {WAIT}, and {EXPIRY}"):
        client.lock("a", timeout=2).acquire(**keywords)
    with pytest.raises(TypeError) as caught:
        client.lock("a").acquire(**keywords)
    assert EXPIRY not in str(caught.value)


@pytest.mark.parametrize(
    "keywords, told",
    [
        ({"host": "db", "port": 6379}, r'host \(the URL has it: "redis://'),
        (
            {"hosts": "zk:2181", "timeout": 10},
            "timeout=10 is how long a caller waits for a lock here, and request_timeout ",
        ),
        ({"servers": ["a"]}, "the URL has it"),
        ({"socket_timeout": 3}, "it is called request_timeout here"),
        ({"tll": 3}, r"did you mean ttl\?"),
        ({"prefix": "x"}, "it is called namespace here"),
    ],
)
def test_a_keyword_of_another_client_says_what_to_write(keywords, told):
    with pytest.raises(ConfigError, match=told):
        lockkit.connect(**keywords)


@pytest.mark.parametrize(
    "how", [lambda client: client.lock("a", timeout=-1), lambda client: client.lock("a").acquire(-1)]
)
def test_the_word_of_others_for_ever_is_explained(client, how):
    with pytest.raises(
        ConfigError, match=r"timeout must be at least 0, not -1 \(timeout=None waits for ever\)"
    ):
        how(client)


# -- the words are true


def test_no_habit_hides_a_name_that_exists():
    classes = {"Client": Client, "Lease": Lease, "Lock": Lock, "RWLock": RWLock}
    for owner, names in habit_words.NAMES.items():
        there = set(dir(classes.get(owner, lockkit))) - {"gpu"}  # there only once it was imported, as here
        assert not there & set(names), owner
    assert set(habit_words.NAMES["module"]) == HABITUAL
    assert not set(habit_words.ACQUIRE) & set(inspect.signature(AsyncLock.acquire).parameters)
    assert set(habit_words.ACQUIRE) & set(inspect.signature(Lock.acquire).parameters) == {"cancel"}
    assert not set(habit_words.OPTIONS) & set(Options.__annotations__)
    assert not set(habit_words.CONNECT) & (set(SETTINGS) | set(inspect.signature(lockkit.connect).parameters))


def test_the_names_of_a_lease_that_a_lock_lacks_are_all_answered(lock):
    ours = {
        "alarm",
        "alarm_asked",
        "asked_callbacks",
        "began",
        "ends_at",
        "callbacks",
        "follow",
        "hear_out",
        "invalid",
        "lapse",
        "last_calls",
        "leave",
        "left",
        "lengthen",
        "over",
        "request_timeout",
        "stands_for",
        "statement",
        "tell_guard",
        "within",
    }  # not for users
    theirs = {name for name in dir(Lease) if not name.startswith("_")} - ours - set(dir(lock))
    assert theirs == set(habit_words.OF_A_LEASE) | (theirs & set(habit_words.NAMES["Lock"]))


def test_every_call_that_a_hint_names_exists(client, lock):
    owners = {"client": client, "lease": Lease, "lock": lock, "rwlock": RWLock, "lockkit": lockkit}
    hints = [
        hint
        for words in (
            *habit_words.NAMES.values(),
            habit_words.ACQUIRE,
            habit_words.OPTIONS,
            habit_words.CONNECT,
        )
        for hint in words.values()
    ]
    named = {
        call for hint in hints for call in re.findall(r"\b(client|lease|lock|rwlock|lockkit)\.(\w+)", hint)
    }
    assert len(named) > 20
    assert [(owner, name) for owner, name in named if name not in dir(owners[owner])] == []


# -- nothing else notices


def test_hasattr_getattr_and_dir_are_as_before(client, lock):
    assert not hasattr(lock, "fence")
    assert getattr(lock, "release", "none") == "none"
    assert "release" not in dir(lock)
    assert not hasattr(lockkit, "lock")
    with pytest.raises(AttributeError, match=r"^'Lock' object has no attribute 'colour'$") as caught:
        _ = lock.colour
    assert (caught.value.name, caught.value.obj) == ("colour", lock)
    assert "name" in dir(caught.value.obj), "Python suggests the nearest name from these two"


def test_copies_and_pickles_are_as_before(client, lock):
    assert copy.copy(lock).name == "a"
    assert copy.copy(client.rwlock("a")).read().name == "a"
    lease = lock.acquire()
    assert pickle.loads(pickle.dumps(lease)).claim_id == lease.claim_id
    assert copy.copy(lease).claim_id == lease.claim_id
    lease.release()
    for one in (lock, client):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(one)
    empty = object.__new__(Lock)
    with pytest.raises(AttributeError, match="terms"):
        _ = empty.name


def test_mocks_and_inspect_are_as_before(client, lock):
    double = mock.create_autospec(client, instance=True)
    double.lock("a").acquire(timeout=3)
    with pytest.raises(AttributeError):
        double.mutex("a")
    double = mock.create_autospec(Lock)
    with pytest.raises(AttributeError):
        _ = double.fence
    assert not hasattr(lock, "lease"), "in no `with` of it"
    assert "acquire" in dict(inspect.getmembers(lock))
    mock.Mock(spec=lock).acquire(timeout=3)
    mock.create_autospec(lock).acquire(timeout=3)
    with lock:
        assert lock.lease.valid()
    assert list(inspect.signature(lock.acquire).parameters)[:2] == ["timeout", "note"]
    assert inspect.unwrap(lock) is lock
    assert not callable(lock)


def test_the_lease_outside_of_a_with_is_an_error_of_both_kinds(lock):
    with pytest.raises(lockkit.NotHeld, match="in no `with` of 'a'") as caught:
        _ = lock.lease
    assert isinstance(caught.value, AttributeError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again), again.name) == (type(caught.value), str(caught.value), "a")


def test_a_subclass_is_answered_too(client):
    class Mine(Lock):
        """A lock of somebody's."""

    mine = Mine(client._opening, client.lock("a").terms)
    with pytest.raises(AttributeError, match=r"lock\.lease\.fence"):
        _ = mine.fence


def test_a_program_without_mistakes_never_imports_the_words():
    program = """
import sys, lockkit
with lockkit.connect("memory:") as client, client.lock("a"):
    pass
assert "lockkit.values.habits" in sys.modules and "lockkit.values.habit_words" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
