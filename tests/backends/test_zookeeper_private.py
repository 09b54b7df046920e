"""The private names of kazoo that lockkit uses are still there; a new version that changed one fails here."""

from __future__ import annotations

import collections
import inspect
import logging
import math
import re
import threading

import pytest

pytest.importorskip("kazoo")

from kazoo.client import KazooClient
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol import connection as theirs
from kazoo.protocol import serialization
from kazoo.protocol.serialization import Close, Create2
from kazoo.retry import KazooRetry
from kazoo.security import OPEN_ACL_UNSAFE

from lockkit.lib.clock import SYSTEM
from lockkit_zookeeper import private
from lockkit_zookeeper.address import parse
from lockkit_zookeeper.answers import Answer
from lockkit_zookeeper.private import Client, KazooConnection, Wish

OVERRIDDEN = {
    "_read_response": ["self", "header", "buffer", "offset"],
    "_connect_loop": ["self", "retry"],
    "_expand_client_hosts": ["self"],
    "_connect": ["self", "host", "hostip", "port"],
    "_invoke": ["self", "timeout", "request", "xid"],
    "_submit": ["self", "request", "timeout", "xid"],
    "_send_request": ["self", "read_timeout", "connect_timeout"],
    "_authenticate_with_sasl": ["self", "host", "timeout"],
}
"""Methods of kazoo's connection that ours replaces, and what they are called with."""


class Owner:
    where = ""
    trouble = ""
    turn = 0

    def is_ready(self, began, granted): ...

    def refused(self, refusal): ...


@pytest.fixture
def client():
    owner, address = Owner(), parse("zookeeper://127.0.0.1:1")
    return Client(
        Wish(math.inf),
        lambda client, retry: KazooConnection(
            client, retry, logging.getLogger(), None, SYSTEM, owner, address
        ),
        hosts="127.0.0.1:1",
        handler=SequentialThreadingHandler(),
    )


def test_no_name_of_ours_is_one_of_kazoo():
    theirs_of = {
        Client: KazooClient(hosts="127.0.0.1:1"),
        KazooConnection: KazooClient(hosts="127.0.0.1:1")._connection,
    }
    for ours, kazoos in theirs_of.items():
        taken = [name for name in vars(ours) if name not in OVERRIDDEN and not name.startswith("__")]
        assert [name for name in taken if hasattr(kazoos, name)] == []


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_a_connection_of_kazoo_has_the_methods_that_ours_replaces(name):
    method = getattr(theirs.ConnectionHandler, name)
    assert list(inspect.signature(method).parameters) == OVERRIDDEN[name]
    assert name in vars(KazooConnection)


def test_a_connection_of_kazoo_is_made_as_ours_makes_it():
    made = inspect.signature(theirs.ConnectionHandler.__init__).parameters
    assert {"client", "retry_sleeper", "logger", "sasl_options"} <= made.keys()
    assert theirs.STOP_CONNECTING is not None


def test_a_connection_has_its_sockets_its_count_and_its_thread(client):
    connection = client._connection
    assert connection.sockets() == (None, None, None)
    assert connection._write_sock is connection._read_sock is None
    assert connection.client is client
    assert connection.handler is client.handler


def test_a_client_has_its_state_and_its_queues(client):
    assert isinstance(client._queue, collections.deque)
    assert isinstance(client._pending, collections.deque)
    assert isinstance(client._conn_retry, KazooRetry)
    assert client._stopped is client.wish
    assert client._session_timeout == 10_000
    assert client._data_watchers.get("/none") is None
    assert client._state == private.KeeperState.CLOSED
    assert client.identity == (None, b"\0" * 16)


def test_kazoos_client_starts_its_handler_its_pair_and_its_loop_as_ours_does_in_one_thread():
    started = inspect.getsource(KazooClient.start_async), inspect.getsource(theirs.ConnectionHandler.start)
    assert "self.handler.start()" in started[0]
    assert "self._connection.start()" in started[0]
    assert "rw_sockets = self.handler.create_socket_pair()" in started[1]
    assert "self._read_sock, self._write_sock = rw_sockets" in started[1]
    assert "self._connection_routine = self.handler.spawn(self.zk_loop)" in started[1]


def test_kazoos_connection_only_asks_whether_it_is_to_stop():
    assert set(re.findall(r"client\._stopped\.(\w+)", inspect.getsource(theirs))) == {"is_set"}
    assert "interrupt = lambda: self._stopped.is_set()" in inspect.getsource(KazooClient)


def test_the_pair_of_a_connection_is_closed_once_it_has_stopped(client):
    connection = client._connection
    connection._read_sock, connection._write_sock = pair = client.handler.create_socket_pair()
    client.close()
    assert [sock.fileno() for sock in pair] == [-1, -1]
    assert connection.sockets() == (None, None, None)


def test_a_request_goes_into_the_queue_as_kazoo_takes_it_out(client):
    """As its connection does: a pair, the request first."""
    client._state = private.KeeperState.CONNECTED
    answer = client.send("request")
    assert client._queue.popleft() == ("request", answer)
    assert isinstance(answer, Answer)


def test_kazoo_takes_requests_from_the_queue_and_waits_for_answers_as_pairs():
    """lockkit's own call must leave both of kazoo's queues as kazoo's reader expects them."""
    source = inspect.getsource(theirs.ConnectionHandler._send_request)
    for line in (
        "request, async_object = client._queue[0]",
        "self._submit(request, connect_timeout, xid)",
        "client._queue.popleft()",
        "self._read_sock.recv(1)",
        "client._pending.append((request, async_object, xid))",
    ):
        assert line in source, line


def test_a_handler_has_what_answers_use_and_ours_replaces():
    handler = SequentialThreadingHandler()
    assert handler.completion_queue.put
    assert handler.running is False
    assert handler._running is False
    assert handler.queue_impl
    for name, words in {
        "spawn": ["self", "func"],
        "select": ["self"],
        "create_connection": ["self"],
        "async_result": ["self"],
        "dispatch_callback": ["self", "callback"],
        "start": ["self"],
    }.items():
        found = list(inspect.signature(getattr(SequentialThreadingHandler, name)).parameters)
        assert found[: len(words)] == words, name
    for name in ("set", "set_exception", "get", "rawlink", "ready", "successful"):
        assert hasattr(handler.async_result(), name)
        assert hasattr(Answer, name)


def test_kazoo_keeps_a_watch_before_it_reads_on_and_hands_an_event_over_before_that():
    """The order of a watch's events and answers, on which lockkit relies, is that of kazoo's one reader."""
    answered = inspect.getsource(theirs.ConnectionHandler._read_response)
    assert "client._data_watchers[request.path].add(watcher)" in answered
    reported = inspect.getsource(theirs.ConnectionHandler._read_watch_event)
    assert 'client.handler.dispatch_callback(Callback("watch", watch, (ev,)))' in reported
    cut = inspect.getsource(KazooClient._reset_watchers)
    assert 'self.handler.dispatch_callback(Callback("watch", watch, (ev,)))' in cut
    assert "self._reset_watchers()" in inspect.getsource(KazooClient._session_callback)


def test_requests_are_packed_by_name():
    for request in private.__all__:
        if hasattr(serialization, request):
            assert hasattr(getattr(serialization, request), "type"), request
    assert Create2.type == 15
    assert list(inspect.signature(Create2.__new__).parameters)[1:] == ["path", "data", "acl", "flags"]
    container = private.CreateContainer("/a", OPEN_ACL_UNSAFE)
    assert (container.type, container.flags, container.data) == (19, 4, b"")
    assert container.serialize() == Create2("/a", b"", OPEN_ACL_UNSAFE, 4).serialize()


def test_the_request_to_end_a_session_is_true_so_that_its_answer_is_set():
    assert not Close()
    assert private.EndSession()
    assert private.EndSession.type == Close.type


def test_a_new_connection_starts_no_thread(client):
    assert not [each for each in threading.enumerate() if "kazoo" in each.name]
