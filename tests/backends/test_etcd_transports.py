"""Calls that the etcd store needs of a transport, tried with both transports on real servers."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import threading
import time
from urllib.parse import quote

import pytest

from lockkit.errors import BackendUnavailable, PermissionDenied
from lockkit.lib.clock import SYSTEM
from lockkit.store.spi import Refused, Unknown
from lockkit.testing.children import in_child
from lockkit.testing.processes import PATIENCE, free_port, installed, until
from lockkit.testing.troubles import SECRET, told
from lockkit_etcd.transport import (
    Compare,
    Delete,
    Found,
    Get,
    LeaseGone,
    LeaseTaken,
    Put,
    Status,
    Txn,
    Watched,
    WatchEnded,
    after,
)
from support.etcd_transports import SCHEMES, connect
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import EtcdUser
from support.servers.etcd_groups import EtcdCluster
from support.servers.proxy import Proxy
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")

BUDGET = 2.0
TWICE = 1.9 * BUDGET
"""Seconds that a call takes which spends its budget more than once."""
LONG = 40.0
"""Seconds that a call may take which is to be over long before."""
LOCKER = EtcdUser("locker", SECRET, {"locks/": "READWRITE"})
_ids = itertools.count(1, 10_000)


@pytest.fixture(params=SCHEMES)
def opened(request):
    """Opens transports of one kind: ``opened(server)``, or what has another URL."""
    with contextlib.ExitStack() as stack:

        def opened(where, *, options="", **login):
            url = where if isinstance(where, str) else where.url(**login)
            scheme, colon, rest = url.partition(":")
            if request.param == "etcd+grpc":
                scheme += "+grpc"
            transport = connect(scheme + colon + rest + options, SYSTEM)
            stack.callback(transport.close)
            return transport

        yield opened


shared = started(EtcdServer)


@pytest.fixture
def server():
    """One that a test may do to what it likes."""
    with EtcdServer() as server:
        yield server


cluster = started(EtcdCluster)


@pytest.fixture
def members(cluster):
    """All of them alive, whatever the last test did to them."""
    for member in cluster.members:
        member.resume()
        if not member.alive:
            member.start(wait=False)
    cluster.until_healthy()
    return cluster.members


@pytest.fixture
def transport(opened, shared):
    return opened(shared)


@pytest.fixture
def lease():
    """One that nobody else uses."""
    return 4711_000_000_000_000_000 + next(_ids)


@pytest.fixture
def prefix():
    """One that nobody else uses."""
    return f"locks/{next(_ids)}/".encode()


class Heard:
    """The news of a watch."""

    def __init__(self, transport, prefix, start=0):
        self.news = queue.SimpleQueue()
        self._range = transport, prefix
        self.stream = transport.watch(prefix, after(prefix), start, self.news.put)

    def next(self, seconds=PATIENCE):
        return self.news.get(timeout=seconds)

    def until_ended(self, seconds=PATIENCE):
        while not isinstance(news := self.next(seconds), WatchEnded):
            pass
        return news

    def after_a_fork(self, start):
        """The same, or another over gRPC, where a fork ends it."""
        if not self._range[0].name.startswith("gRPC"):
            return self
        self.until_ended()
        return Heard(*self._range, start)

    def changes(self, count):
        """The next so many, whatever pieces they come in."""
        found = []
        while len(found) < count:
            news = self.next()
            assert isinstance(news, Watched), news
            found += news.changes
        return found


def put(transport, key, value=b"", lease=0):
    return transport.txn(Txn((), (Put(key, value, lease),)), BUDGET)


def in_time(call):
    """The trouble that a call with the usual budget has; it has it in time."""
    began = time.monotonic()
    with pytest.raises((Refused, Unknown)) as caught:
        call()
    assert time.monotonic() - began < TWICE
    assert SECRET not in told(caught.value)
    return caught.value


# -- leases


def test_a_lease_from_its_grant_to_its_end(transport, lease):
    granted = transport.grant(lease, 20, BUDGET)
    assert granted.ttl == 20
    with pytest.raises(LeaseTaken):
        transport.grant(lease, 20, BUDGET)
    assert transport.remaining(lease, BUDGET).granted == 20
    assert 18 <= transport.remaining(lease, BUDGET).ttl <= 20
    transport.revoke(lease, BUDGET)
    with pytest.raises(LeaseGone):
        transport.revoke(lease, BUDGET)
    assert transport.remaining(lease, BUDGET).ttl == -1


def test_a_keepalive_says_when_it_was_sent_and_who_answered_as_of_which_term(transport, lease):
    transport.grant(lease, 20, BUDGET)
    before = SYSTEM.now()
    kept = transport.keepalive([lease, 2], BUDGET)
    header, _ = transport.range(Get(b"x"), BUDGET)
    assert (kept[lease].member, kept[lease].term) == (header.member, header.term)
    assert before <= kept[lease].sent <= SYSTEM.now()
    assert (kept[lease].ttl, kept[2].ttl) == (20, 0)
    transport.revoke(lease, BUDGET)


def test_a_keepalive_moves_the_end_of_a_lease(transport, lease):
    transport.grant(lease, 20, BUDGET)
    until(lambda: transport.remaining(lease, BUDGET).ttl < 19, "it has grown old")
    transport.keepalive([lease], BUDGET)
    assert transport.remaining(lease, BUDGET).ttl == 19  # and something: it is rounded down
    transport.revoke(lease, BUDGET)


@pytest.mark.parametrize("many", [1, 8, 9, 100, 1200])
def test_many_leases_are_all_kept_alive(transport, lease, many):
    leases = range(lease, lease + many)
    for each in leases[::50]:
        transport.grant(each, 60, BUDGET)
    kept = transport.keepalive(leases, 20.0)
    assert kept.keys() == set(leases)
    assert sorted(each for each, answer in kept.items() if answer.ttl) == list(leases[::50])
    for each in leases[::50]:
        transport.revoke(each, BUDGET)


def test_what_lies_on_a_lease_goes_with_it(transport, prefix, lease):
    transport.grant(lease, 20, BUDGET)
    put(transport, prefix + b"a", b"", lease)
    transport.revoke(lease, BUDGET)
    assert transport.range(Get(prefix, after(prefix)), BUDGET)[1] == Found([])


def test_a_read_can_be_limited_to_what_was_created_in_a_while(transport, prefix):
    created = {}
    for name in (b"c", b"a", b"b"):
        put(transport, prefix + name, name)
        created[name] = transport.range(Get(prefix + name), BUDGET)[1].kvs[0].created
    put(transport, prefix + b"c", b"again")
    everything = Get(prefix, after(prefix))

    def found(**what):
        found = transport.range(everything._replace(**what), BUDGET)[1]
        (same,) = (
            each.found for each in transport.txn(Txn((), (everything._replace(**what),)), BUDGET).answers
        )
        assert same == found
        return "".join(kv.key[-1:].decode() for kv in found.kvs), found.count

    assert found() == ("abc", 3)
    assert found(until=created[b"a"]) == ("ac", 3)
    assert found(first="oldest") == ("cab", 3)
    assert found(first="oldest", limit=1) == ("c", 3)
    assert found(first="newest", limit=2) == ("ba", 3)
    assert found(first="newest", until=created[b"a"]) == ("ac", 3)


# -- transactions


def test_a_transaction_does_the_branch_that_its_comparisons_say(transport, prefix):
    a, b, all_ = prefix + b"a", prefix + b"b", Get(prefix, after(prefix))
    enter = Txn((Compare(a, "CREATE", "EQUAL", 0),), (Put(a, b"1"), all_), (Get(a), Put(b, b"2"), all_))

    first = transport.txn(enter, BUDGET)
    assert (first.succeeded, first.answers[0].found) == (True, None)
    (kv,) = first.found()
    assert (kv.key, kv.value, kv.lease) == (a, b"1", 0)
    assert kv.created == kv.modified == first.header.revision

    second = transport.txn(enter, BUDGET)
    assert not second.succeeded
    assert [len(each.kvs) for each in (second.answers[0].found, second.answers[2].found)] == [1, 2]
    assert second.header.revision == first.header.revision + 1

    gone = transport.txn(Txn((), (Delete(prefix, after(prefix)), Delete(a), all_)), BUDGET)
    assert [each.found for each in gone.answers] == [None, None, Found([])]


@pytest.mark.parametrize(
    "compare, holds",
    [
        (("CREATE", "EQUAL", 0), False),
        (("VERSION", "EQUAL", 1), True),
        (("VERSION", "LESS", 2), True),
        (("VERSION", "GREATER", 0), True),
        (("MOD", "LESS", 0), False),
        (("MOD", "LESS", 1 << 40), True),
        (("CREATE", "GREATER", 1 << 40), False),
    ],
)
def test_comparisons_of_one_key_and_of_many(transport, prefix, compare, holds):
    put(transport, prefix + b"a")
    last = put(transport, prefix + b"b").header.revision
    one = Compare(prefix + b"a", *compare)
    many = Compare(prefix, *compare, end=after(prefix))
    assert transport.txn(Txn((one,), ()), BUDGET).succeeded is holds
    assert transport.txn(Txn((many,), ()), BUDGET).succeeded is holds
    empty = Compare(prefix + b"none", "VERSION", "EQUAL", 0, after(prefix + b"none"))
    assert transport.txn(Txn((empty,), ()), BUDGET).succeeded
    not_all = Compare(prefix, "MOD", "LESS", last, after(prefix))
    assert not transport.txn(Txn((not_all,), ()), BUDGET).succeeded


def test_a_put_can_leave_the_lease_as_it_is(transport, prefix, lease):
    transport.grant(lease, 20, BUDGET)
    key = prefix + b"a"
    put(transport, key, b"1", lease)
    transport.txn(Txn((), (Put(key, b"2", same_lease=True),)), BUDGET)
    (kv,) = transport.range(Get(key), BUDGET)[1].kvs
    assert (kv.value, kv.lease) == (b"2", lease)
    transport.revoke(lease, BUDGET)
    with pytest.raises(Refused):
        transport.txn(Txn((), (Put(prefix + b"other"), Put(prefix + b"none", b"3", same_lease=True))), BUDGET)
    assert transport.range(Get(prefix + b"other"), BUDGET)[1] == Found([])


def test_a_put_on_a_lease_that_is_gone_does_nothing(transport, prefix):
    with pytest.raises(LeaseGone):
        transport.txn(Txn((), (Put(prefix + b"a"), Put(prefix + b"b", b"", 99))), BUDGET)
    assert transport.range(Get(prefix, after(prefix)), BUDGET)[1] == Found([])


def test_every_byte_comes_back_as_it_was(transport, prefix):
    raw = bytes(range(256))
    put(transport, prefix + raw, raw * 100)
    (kv,) = transport.range(Get(prefix, after(prefix)), BUDGET)[1].kvs
    assert (kv.key, kv.value) == (prefix + raw, raw * 100)


def test_a_range_comes_in_order_without_values_and_cut_if_asked_for(transport, prefix):
    for name in (b"c", b"a", b"b"):
        put(transport, prefix + name, b"value")
    _, found = transport.range(Get(prefix, after(prefix), keys_only=True, limit=2), BUDGET)
    assert [(kv.key[-1:], kv.value) for kv in found.kvs] == [(b"a", b""), (b"b", b"")]
    assert found.more
    assert not transport.range(Get(prefix, after(prefix)), BUDGET)[1].more


def test_a_long_answer_comes_whole(transport, prefix):
    for at in range(6):
        put(transport, prefix + b"%d" % at, bytes(1_000_000))
    _, found = transport.range(Get(prefix, after(prefix)), 10.0)
    assert [len(kv.value) for kv in found.kvs] == [1_000_000] * 6
    transport.txn(Txn((), (Delete(prefix, after(prefix)),)), BUDGET)


def test_it_serves_many_threads(transport, prefix):
    troubles = []

    def work(name):
        try:
            for at in range(25):
                put(transport, prefix + b"%d/%d" % (name, at))
        except BaseException as error:
            troubles.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not troubles
    _, found = transport.range(Get(prefix, after(prefix), keys_only=True), BUDGET)
    assert len(found.kvs) == 8 * 25


# -- members


def test_every_member_says_how_it_is(opened, cluster, members):
    transport = opened(cluster)
    said = transport.status(BUDGET)
    assert [each.endpoint for each in said] == [each.address for each in members]
    assert {each.leader for each in said} <= {each.header.member for each in said}
    assert all(each.size >= each.in_use > 0 and each.version.startswith("3.") for each in said)
    header, _ = transport.range(Get(b"x"), BUDGET)
    assert header.term == said[0].term
    assert header.member in {each.header.member for each in said}

    members[1].kill()
    one, two, three = transport.status(BUDGET)
    assert isinstance(two, (Refused, Unknown))
    assert isinstance(one, Status)
    assert isinstance(three, Status)


def fill(transport):
    """Until it is full: it looks at its size only when it writes to its disk."""
    for at in range(100):
        put(transport, b"%d" % at, bytes(200_000))


def test_a_full_member_says_so(opened):
    with EtcdServer(quota_backend_bytes=1 << 20) as server:
        transport = opened(server)
        with pytest.raises(Unknown, match="NOSPACE"):
            fill(transport)
        (said,) = transport.status(BUDGET)
        assert "NOSPACE" in said.errors[0]


def test_a_member_that_dies_is_passed_over(opened, cluster, members, prefix):
    transport = opened(cluster)
    put(transport, prefix + b"a")
    members[0].kill()
    cluster.until_healthy()
    with contextlib.suppress(Unknown):  # its connection is found dead after something was sent
        put(transport, prefix + b"b")
    put(transport, prefix + b"c")
    assert transport.range(Get(prefix + b"c"), BUDGET)[1].kvs


def test_a_member_that_was_never_there_is_passed_over(opened, shared, prefix, lease):
    transport = opened(f"etcd://127.0.0.1:{free_port()},{shared.address}")
    put(transport, prefix + b"a")
    transport.grant(lease, 20, BUDGET)
    assert transport.keepalive([lease], BUDGET)[lease].ttl == 20
    transport.revoke(lease, BUDGET)


def test_a_silent_member_costs_a_read_no_answer_and_a_write_is_not_sent_again(
    opened, cluster, members, prefix
):
    leader = cluster.leader()
    silent = next(each for each in members if each is not leader)
    others = [each.address for each in members if each is not silent]
    reader, writer = (opened(f"etcd://{','.join([silent.address, *others])}") for _ in range(2))
    for each in (reader, writer):
        each.range(Get(b"x"), BUDGET)
    silent.pause()
    began = time.monotonic()
    reader.range(Get(b"x"), BUDGET)
    assert time.monotonic() - began < TWICE
    assert isinstance(in_time(lambda: put(writer, prefix + b"a")), Unknown)
    assert not writer.range(Get(prefix + b"a"), BUDGET)[1].kvs
    put(writer, prefix + b"b")


def test_a_fresh_one_begins_with_another_member(opened, cluster, members):
    transport = opened(cluster)
    seen = {transport.range(Get(b"x"), BUDGET)[0].member}
    for _ in range(2):
        transport = transport.fresh()
        seen.add(transport.range(Get(b"x"), BUDGET)[0].member)
        transport.close()
    assert len(seen) == 3


def test_without_a_leader_it_is_told_at_once(opened, cluster, members, lease):
    transport = opened(members[0])
    transport.range(Get(b"x"), BUDGET)
    for each in members[1:]:
        each.kill()

    def refused():
        try:
            transport.range(Get(b"x"), BUDGET)
        except Refused as refusal:
            return "no leader" in str(refusal)
        except Unknown:
            return False
        return False

    until(refused, "it knows that it has no leader")
    for call in (
        lambda: transport.txn(Txn((), (Put(b"x"),)), LONG),
        lambda: transport.grant(lease, 20, LONG),
        lambda: transport.range(Get(b"x"), LONG),
    ):
        began = time.monotonic()
        with pytest.raises(Refused, match="no leader"):
            call()
        assert time.monotonic() - began < LONG / 2


# -- servers that are away or silent


def test_a_closed_port_is_told(opened):
    transport = opened(f"etcd://127.0.0.1:{free_port()}")
    for call in (
        lambda: transport.range(Get(b"x"), BUDGET),
        lambda: put(transport, b"x"),
        lambda: transport.keepalive([1], BUDGET),
    ):
        trouble = in_time(call)
        assert isinstance(trouble, Refused)
        assert trouble.retry
        assert "cannot reach" in str(trouble)


def test_a_server_that_comes_back_is_found(opened, server):
    transport = opened(server)
    put(transport, b"a")
    server.kill()
    for _ in range(3):
        in_time(lambda: put(transport, b"b"))
    server.start()
    until(lambda: _works(transport), "it is found again")


def _works(transport, key=b"c"):
    try:
        put(transport, key)
    except (Refused, Unknown):
        return False
    return True


def test_a_server_that_stops_answering_is_told_in_time(opened, server):
    transport = opened(server)
    put(transport, b"a")
    server.pause()
    assert isinstance(in_time(lambda: put(transport, b"b", b"late")), Unknown)
    for call in (
        lambda: transport.range(Get(b"x"), BUDGET),
        lambda: transport.keepalive([1], BUDGET),
        lambda: put(transport, b"c"),
    ):
        in_time(call)
    server.resume()
    until(lambda: _works(transport), "it answers again")


def test_a_server_that_never_answered_was_sent_nothing(opened, server):
    server.pause()  # it still accepts connections
    transport = opened(server)
    in_time(lambda: transport.range(Get(b"x"), BUDGET))


# -- watches


def test_a_watch_tells_every_change_in_order(transport, prefix, lease):
    heard = Heard(transport, prefix)
    assert heard.next().changes == []
    transport.grant(lease, 20, BUDGET)
    first = put(transport, prefix + b"a", b"1", lease).header.revision
    put(transport, prefix[:-1] + b"0", b"another's")
    put(transport, prefix + b"b", b"2")
    transport.revoke(lease, BUDGET)
    a, b, gone = heard.changes(3)
    assert (a.kind, a.kv.key, a.kv.value, a.kv.lease) == ("PUT", prefix + b"a", b"1", lease)
    assert a.kv.created == a.kv.modified == first
    assert (b.kind, b.kv.key, b.kv.lease) == ("PUT", prefix + b"b", 0)
    assert (gone.kind, gone.kv.key, gone.kv.value) == ("DELETE", prefix + b"a", b"")
    assert gone.kv.modified > b.kv.modified


def test_a_watch_begins_in_the_past(transport, prefix):
    start = put(transport, prefix + b"a").header.revision
    put(transport, prefix + b"a", b"2")
    changes = Heard(transport, prefix, start).changes(2)
    assert [each.kv.value for each in changes] == [b"", b"2"]


def test_many_watches_hear_of_their_own_keys_only(transport, prefix):
    prefixes = [prefix + b"%d/" % at for at in range(20)]
    heard = [Heard(transport, each) for each in prefixes]
    for each in heard:
        each.next()
    heard[3].stream.close()
    for each in prefixes:
        put(transport, each + b"a", each)
    for at, each in enumerate(heard):
        if at != 3:
            assert [change.kv.value for change in each.changes(1)] == [prefixes[at]]
            assert each.news.empty()
    assert heard[3].news.empty()


def test_a_closed_watch_hears_nothing_more_and_another_can_be_opened(transport, prefix):
    for _ in range(3):
        heard = Heard(transport, prefix)
        heard.next()
        heard.stream.close()
        heard.stream.close()
        put(transport, prefix + b"a")
        other = Heard(transport, prefix, 1)
        other.changes(1)
        other.stream.close()
        assert heard.news.empty()


def test_a_watch_that_begins_too_far_back_says_from_where_it_can(opened, server):
    transport = opened(server)
    for at in range(5):
        put(transport, b"a", b"%d" % at)
    at = server.compact()
    ended = Heard(transport, b"a", 2).until_ended()
    assert ended.compacted == at


def test_a_watch_over_a_connection_that_is_cut_ends_and_another_works(opened, server):
    transport = opened(server)
    heard = Heard(transport, b"a")
    heard.next()
    server.kill()
    assert heard.until_ended().why
    assert Heard(transport, b"a").until_ended().why  # nobody is there
    server.start()
    until(lambda: isinstance(Heard(transport, b"a").next(), Watched), "it can be watched again")


def test_a_watch_ends_where_there_is_no_leader(opened, cluster, members):
    transport = opened(members[0])
    heard = Heard(transport, b"a")
    heard.next()
    for each in members[1:]:
        each.kill()
    assert "no leader" in heard.until_ended().why


# -- logins


guarded = started(EtcdServer, users=[LOCKER])


def test_a_user_may_do_what_its_role_says(opened, guarded, lease):
    transport = opened(guarded, user="locker", password=SECRET)
    put(transport, b"locks/a")
    for call, missing in (
        (lambda: put(transport, b"lockkit/other/x"), "write lockkit/other/"),
        (lambda: transport.range(Get(b"lockkit/other/x"), BUDGET), "read lockkit/other/"),
    ):
        denied = in_time(call)
        assert isinstance(denied, Refused)
        assert isinstance(denied.error, PermissionDenied)
        assert not denied.retry
        assert missing in denied.error.message
        assert "readwrite lockkit/other/" in denied.error.hint
    transport.grant(lease, 20, BUDGET)
    assert transport.keepalive([lease], BUDGET)[lease].ttl == 20
    transport.revoke(lease, BUDGET)
    heard = Heard(transport, b"locks/")
    heard.next()
    assert "permission denied" in Heard(transport, b"other/").until_ended().why
    put(transport, b"locks/a")
    heard.changes(1)
    assert SECRET not in transport.where
    assert SECRET not in repr(transport)


def test_a_login_that_is_not_known_is_told(opened, guarded):
    for login in ({"user": "locker", "password": SECRET + "x"}, {"user": "nobody", "password": SECRET}):
        refusal = in_time(lambda login=login: put(opened(guarded, **login), b"locks/a"))
        assert isinstance(refusal.error, PermissionDenied)
        assert not refusal.retry
        assert "user name or password is wrong" in str(refusal.error)
    assert "requires a user and a password" in str(in_time(lambda: put(opened(guarded), b"locks/a")))


def test_a_login_where_none_is_asked_for_is_told(opened, shared):
    transport = opened(shared, user="locker", password=SECRET)
    assert "authentication is off" in str(in_time(lambda: put(transport, b"locks/a")))


def test_a_member_that_has_forgotten_the_login_is_told_it_again(opened):
    with EtcdServer(users=[LOCKER]) as server:
        transport = opened(server, user="locker", password=SECRET)
        put(transport, b"locks/a")
        server.restart(lose_data=False)
        until(lambda: _works(transport, b"locks/a"), "it answers")
        put(transport, b"locks/b")
        heard = Heard(transport, b"locks/")
        heard.next()
        put(transport, b"locks/c")
        heard.changes(1)


# -- TLS


secure = started(EtcdServer, tls=True, client_certificates=True)


def test_tls_with_certificates_on_both_sides(opened, secure):
    of = secure.certificates
    options = f"?ca_file={quote(str(of.ca))}&cert_file={of.nameless}&key_file={of.nameless_key}"
    transport = opened(secure, options=options)
    put(transport, b"a")
    heard = Heard(transport, b"a", 1)
    heard.changes(1)
    for less in (f"?ca_file={of.ca}", f"?cert_file={of.nameless}&key_file={of.nameless_key}"):
        trouble = in_time(lambda less=less: put(opened(secure, options=less), b"a"))
        assert isinstance(trouble, (Refused, Unknown))
    assert isinstance(in_time(lambda: put(opened(f"etcd://{secure.address}"), b"a")), (Refused, Unknown))


class Elsewhere(Proxy):
    """An address that is not in the certificate."""

    host = "127.0.0.2"


def test_a_server_that_is_not_to_be_trusted_is_sent_nothing(opened, secure):
    with Elsewhere((secure.host, secure.port)) as other:
        troubles = [
            in_time(lambda: put(opened(secure), b"untrusted")),
            in_time(lambda: put(opened(f"etcds://{other.address}?ca_file={secure.certificates.ca}"), b"x")),
        ]
    for trouble, todo in zip(troubles, ("?ca_file=", "as in the server's certificate"), strict=True):
        assert isinstance(trouble, Refused)
        assert isinstance(trouble.error, BackendUnavailable)
        assert not trouble.retry  # it cannot pass
        assert todo in trouble.error.hint


# -- processes and ends


def test_a_forked_child_is_refused_and_its_parent_unharmed(opened, shared, prefix, lease):
    transport = opened(shared)
    start = put(transport, prefix + b"a").header.revision + 1
    heard = Heard(transport, prefix, start)
    heard.next()

    def child():
        answers = []
        for call in (
            lambda: put(transport, prefix + b"child"),
            lambda: transport.range(Get(b"x"), BUDGET),
            lambda: transport.keepalive([lease], BUDGET),
            lambda: transport.fresh().grant(lease, 20, BUDGET),
        ):
            try:
                call()
            except Refused as refusal:
                answers.append(refusal.retry)
        heard.stream.close()
        transport.watch(prefix, after(prefix), 0, heard.news.put).close()
        transport.close()
        return answers

    assert in_child(child) == [False] * 4
    put(transport, prefix + b"b")
    assert [each.kv.key for each in heard.after_a_fork(start).changes(1)] == [prefix + b"b"]


def test_a_forked_child_can_connect_anew(opened, shared, prefix):
    transport = opened(shared)
    start = put(transport, prefix + b"a").header.revision + 1
    heard = Heard(transport, prefix, start)
    heard.next()

    def child():
        mine = opened(shared)
        put(mine, prefix + b"child")
        news = Heard(mine, prefix, 1)
        found = len(news.changes(2))
        mine.close()
        return found

    assert in_child(child) == 2
    put(transport, prefix + b"b")
    assert [each.kv.key for each in heard.after_a_fork(start).changes(2)] == [
        prefix + b"child",
        prefix + b"b",
    ]


def test_a_closed_one_refuses_and_leaves_nothing_behind(opened, server):
    transport = opened(server)
    threads, files = {*threading.enumerate()}, _sockets()
    for _ in range(3):
        other = opened(server)
        put(other, b"a")
        heard = Heard(other, b"a")
        heard.next()
        other.close()
        other.close()
        assert isinstance(in_time(lambda other=other: put(other, b"a")), Refused)
        assert isinstance(in_time(lambda other=other: other.range(Get(b"a"), BUDGET)), Refused)
        other.watch(b"a", b"b", 0, heard.news.put).close()
    until(lambda: threads.issuperset(threading.enumerate()), "its threads have ended")
    until(lambda: _sockets() <= files, "its connections are closed")
    assert isinstance(transport.status(BUDGET)[0], Status)


def _sockets():
    folder = "/proc/self/fd"
    if not os.path.isdir(folder):  # noqa: PTH112
        pytest.skip("not Linux")
    found = 0
    for each in os.listdir(folder):  # noqa: PTH208
        with contextlib.suppress(OSError):
            found += os.readlink(f"{folder}/{each}").startswith("socket:")  # noqa: PTH115
    return found
