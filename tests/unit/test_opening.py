"""Opening a store that is not there yet: an acquire has its whole timeout for that, too."""

from __future__ import annotations

import logging
import socket

import pytest

import lockkit
from lockkit.cli.main import run
from lockkit.errors import AcquireCancelled, BackendError, BackendUnavailable
from lockkit.hooks import hookimpl
from lockkit.store.spi import BackendSpec, Refused, Unknown
from lockkit.testing.took import Took
from lockkit_memory import CAPABILITIES
from lockkit_memory.backend import open_store


class Late:
    """A store that opens at the n-th try."""

    def __init__(self, trouble, tries):
        self.trouble = trouble
        self.left = tries
        self.tries = 0
        self.on_try = lambda: None
        self.heed = lambda options: None

    @hookimpl
    def lockkit_backends(self):
        return [BackendSpec("late", ("late",), self.open, "is late", CAPABILITIES)]

    def open(self, url, options):
        self.tries += 1
        self.on_try()
        self.heed(options)
        self.left -= 1
        if self.left > 0:
            raise self.trouble(BackendUnavailable("still loading"))
        return open_store("memory://late", options)


@pytest.fixture
def late(tmp_path):
    clients = []

    def make(trouble=Refused, tries=4):
        plugin = Late(trouble, tries)
        client = lockkit.connect("late://here", plugins=[plugin], state_dir=str(tmp_path))
        clients.append(client)
        return plugin, client

    yield make
    for client in clients:
        client.close()


@pytest.mark.parametrize("trouble", [Refused, Unknown])
@pytest.mark.parametrize("timeout", [30, None])
def test_an_acquire_that_may_wait_waits_for_its_store_to_open(late, trouble, timeout, caplog):
    caplog.set_level(logging.WARNING)
    plugin, client = late(trouble)

    with client.lock("a").acquire(timeout=timeout) as lease:
        assert lease.valid()

    assert plugin.tries == 4
    (warning,) = [record for record in caplog.records if "still loading" in record.getMessage()]
    assert "late://here" in warning.getMessage()


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.lock("a").try_acquire(),
        lambda client: client.lock("a").acquire(timeout=0),
        lambda client: client.inspect("a"),
    ],
    ids=["try_acquire", "acquire", "inspect"],
)
def test_who_does_not_wait_is_told_at_once(late, ask):
    plugin, client = late()

    with pytest.raises(BackendUnavailable, match="still loading"):
        ask(client)

    assert plugin.tries == 1


def test_what_will_not_pass_is_told_at_once(late):
    plugin, client = late(lambda error: Refused(error, retry=False))

    with pytest.raises(BackendUnavailable):
        client.lock("a").acquire(timeout=30)

    assert plugin.tries == 1


def test_the_timeout_is_the_limit_and_the_reason_is_told(late):
    plugin, client = late(tries=1000)

    with pytest.raises(BackendUnavailable, match="still loading"):
        client.lock("a").acquire(timeout=0.1)

    assert 1 < plugin.tries < 20


def test_a_signal_handler_that_locks_while_its_store_opens_shares_the_store(late):
    store, client = late(Unknown, 1)
    opened, taken = [], []

    def handler():
        if not opened:
            opened.append(True)
            taken.append(client.lock("a").acquire())

    store.on_try = handler
    assert client.lock("a").try_acquire() is None
    taken[0].release()
    assert store.tries == 2


def test_a_signal_handler_that_needs_a_store_half_imported_is_told_so(late):
    store, client = late(Unknown, 1)
    told = []

    def handler():
        if told:
            raise ImportError("cannot import name 'open_store' from partially initialized module")
        told.append(None)
        with pytest.raises(BackendUnavailable, match="a signal handler interrupted the import"):
            client.lock("a").try_acquire()

    store.on_try = handler
    client.lock("a").acquire().release()


def test_a_client_that_is_closed_meanwhile_opens_nothing(late):
    plugin, client = late(tries=1000)
    plugin.on_try = lambda: plugin.tries < 3 or client.close()

    with pytest.raises(AcquireCancelled):
        client.lock("a").acquire(timeout=30)


@pytest.fixture
def silent():
    """An address that connects and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["redis", "etcd", "zookeeper"])
def test_a_timeout_holds_for_a_server_that_does_not_answer(scheme, silent, tmp_path, request):
    for library in {"redis": ["redis"], "zookeeper": ["kazoo.client"]}.get(scheme, ()):
        pytest.importorskip(library)
    client = lockkit.connect(f"{scheme}://{silent}", state_dir=str(tmp_path))
    request.addfinalizer(client.close)

    with Took() as took, pytest.raises(BackendError):
        client.lock("a").acquire(timeout=0.5)

    assert 0.25 < took.seconds < 1.9  # it was 2.0 at least


@pytest.mark.parametrize(
    "ask",
    [lambda client: client.inspect("a"), lambda client: client.lock("a").acquire()],
    ids=["inspect", "acquire"],
)
@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "etcd", "zookeeper"])
def test_opening_takes_no_longer_than_a_request_may(scheme, ask, silent, tmp_path, request):
    for library in {"zookeeper": ["kazoo.client"], "etcd": []}.get(scheme, ["redis"]):
        pytest.importorskip(library)
    client = lockkit.connect(f"{scheme}://{silent}?request_timeout=600ms", state_dir=str(tmp_path))
    request.addfinalizer(client.close)

    with Took() as took, pytest.raises(BackendError):
        ask(client)

    assert 0.2 < took.seconds < 1.3  # it was 2.0, whatever was said


def test_a_store_is_given_the_time_that_a_request_may_take_and_never_so_little_that_no_name_is_found(
    tmp_path,
):
    given = []
    plugin = Late(Refused, 1)
    plugin.heed = lambda options: given.append(options.budget)
    for stated in ("5s", "10ms"):
        url = f"late://here?request_timeout={stated}"
        with lockkit.connect(url, plugins=[plugin], state_dir=str(tmp_path)) as client:
            client.inspect("a")

    assert given == [5.0, 0.4]


def test_a_wait_for_a_server_that_does_not_answer_ends_with_its_timeout(silent, capsys):
    with Took() as took:
        assert run(["wait", "a", "--timeout", "1", "--url", f"etcd://{silent}"]) == 69

    assert 0.5 < took.seconds < 1.9  # it was 2.0 at least
    assert "no answer" in capsys.readouterr().err


# -- what a store warns of when it is opened -----------------------------------------------------------------


@pytest.fixture
def doubtful(late, caplog):
    """A client of a store that warns of something at opening, and how often that was told."""
    caplog.set_level(logging.WARNING)
    plugin, client = late(tries=1)
    plugin.heed = lambda options: options.warn("it may forget (100% of all) locks")

    def told():
        return [record.getMessage() for record in caplog.records].count("it may forget (100% of all) locks")

    return plugin, client, told


def test_who_takes_a_lock_is_told_what_the_store_warned_of_once(doubtful):
    _, client, told = doubtful

    for _ in range(2):
        client.lock("a").acquire(timeout=1).release()

    assert told() == 1


def test_who_only_looks_is_not_told_until_he_takes_a_lock(doubtful):
    _, client, told = doubtful

    client.inspect("a")
    client.names()
    client.check()
    assert told() == 0

    client.lock("a").try_acquire().release()
    assert told() == 1


def test_what_a_store_warns_of_later_is_told_at_once(doubtful):
    plugin, client, told = doubtful
    warn = []
    plugin.heed = lambda options: warn.append(options.warn)
    client.inspect("a")

    warn[0]("it may forget (100% of all) locks")

    assert told() == 1
