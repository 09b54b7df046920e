"""The ZooKeeper servers that the tests of the ZooKeeper store run on, themselves."""

import contextlib
import re
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from lockkit.testing.processes import ServerFailed, ServerMissing, until
from support.servers.certificates import Certificates
from support.servers.zookeeper import ZooKeeperServer
from support.servers.zookeeper_groups import ZooKeeperEnsemble
from support.servers.zookeeper_program import zookeeper_installed
from support.servers.zookeeper_proxy import ZooKeeperProxy
from support.servers.zookeeper_session import Session, SessionGone

pytest.importorskip("kazoo")

from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, NoAuthError, SessionClosedRequireSaslError
from kazoo.protocol.serialization import Create2
from kazoo.security import OPEN_ACL_UNSAFE, make_acl, make_digest_acl

pytestmark = pytest.mark.skipif(not zookeeper_installed(), reason="make servers")


@pytest.fixture
def server():
    with ZooKeeperServer() as server:
        yield server


def put(server, path, **options):
    with server.connect() as client:
        client.create(path, b"value", **options)


def children(server, path="/"):
    with server.connect() as client:
        return [each for each in client.get_children(path) if each != "zookeeper"]


def test_it_answers_where_its_url_says(server):
    put(server, "/node")
    assert server.url() == f"zookeeper://127.0.0.1:{server.port}"
    assert server.url("/a b", user="a b", password="p@ss") == (
        f"zookeeper://a%20b:p%40ss@127.0.0.1:{server.port}/a%20b"
    )
    assert server.mode == "standalone"
    assert children(server) == ["node"]


def test_nobody_else_can_enter_its_folder(server):
    assert server.folder.stat().st_mode & 0o777 == 0o700


def test_a_bad_configuration_is_told_with_the_servers_own_words():
    with pytest.raises(ServerFailed, match="NumberFormatException"):
        ZooKeeperServer(tickTime="no number")


def test_the_environment_does_not_configure_it(monkeypatch):
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dzookeeper.jute.maxbuffer=no-number -XX:NoSuchOption")
    with ZooKeeperServer() as server:
        put(server, "/node")


@pytest.mark.parametrize("lose_data", [True, False])
def test_a_restart_keeps_the_port_and_keeps_or_loses_the_data(server, lose_data):
    put(server, "/node")
    port, pid = server.port, server.pid
    server.restart(lose_data=lose_data)
    assert (server.port, server.alive) == (port, True)
    assert server.pid != pid
    assert children(server) == ([] if lose_data else ["node"])


def test_a_crash_loses_nothing(server):
    put(server, "/node")
    server.kill()
    assert not server.alive
    with pytest.raises(ConnectionRefusedError):
        server.word("srvr")
    server.start()
    assert children(server) == ["node"]


def test_a_paused_one_does_not_answer_until_it_goes_on(server):
    with server.session(patience=0.1) as session:
        server.pause()
        with pytest.raises(TimeoutError):
            session.ping()
    assert not server.ready()
    server.resume()
    assert server.ready()


def test_a_paused_one_can_be_stopped_and_started(server):
    server.pause()
    server.stop()
    assert not server.alive
    server.start()
    assert server.ready()


def test_a_missing_program_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr("support.servers.zookeeper_program.JARS", [Path("/no/such.jar")])
    with pytest.raises(ServerMissing, match="ZooKeeper or Java is not installed; run: make servers"):
        ZooKeeperServer()


def test_a_session_can_be_expired_under_its_client(server):
    with server.connect() as client, server.connect() as other:
        lost = threading.Event()
        client.add_listener(lambda state: lost.set() if state == "LOST" else None)
        client.create("/node", ephemeral=True)
        server.expire(client.client_id)
        assert other.exists("/node") is None
        assert lost.wait(5)


def test_a_session_by_hand_is_silent_and_expires_by_itself():
    with ZooKeeperServer(tick=0.1, shortest_session=0.5) as server, server.connect() as client:
        with server.session(timeout=0.1) as session:
            assert session.timeout == 0.5
            session.ping()
            assert session.sync().error == 0
            known = (session.id, session.password)
        until(lambda: f"{known[0]:#x}" not in server.word("dump"), "it has expired")
        with pytest.raises(SessionGone):
            server.session(take_over=known)
        assert client.connected


def test_the_longest_session_is_what_it_was_told():
    with ZooKeeperServer(longest_session=3.0) as server, server.session(timeout=10.0) as session:
        assert session.timeout == 3.0


def test_its_own_figures(server):
    with server.connect() as client:
        client.get_children("/")
        client.create("/node", ephemeral=True)
        assert server.mntr()["ephemerals_count"] == "1"
        assert f"{client.client_id[0]:#x}" in server.word("cons")


def test_an_empty_container_vanishes(server):
    with server.connect() as client:
        container(client, "/queue")
        client.create("/queue/claim")
        client.delete("/queue/claim")
        until(lambda: client.exists("/queue") is None, "it is reaped")


def container(client, path):
    request = type("CreateContainer", (Create2,), {"type": 19})(path, b"", OPEN_ACL_UNSAFE, 4)
    answer = client.handler.async_result()
    client._call(request, answer)
    return answer.get(5)


@contextlib.contextmanager
def client_of(server, **options):
    client = KazooClient(server.address, timeout=5.0, **options)
    try:
        client.start(10)
        yield client
    finally:
        client.stop()
        client.close()


def test_tls_is_for_those_who_know_its_authority(tmp_path):
    strangers = Certificates(tmp_path)
    with ZooKeeperServer(tls=True) as server:
        assert server.url().startswith("zookeepers://")
        assert greeted(server, ssl.create_default_context(cafile=server.certificates.ca)) == b"imok"
        with pytest.raises(ssl.SSLCertVerificationError):
            greeted(server, ssl.create_default_context(cafile=strangers.ca))
        with client_of(server, use_ssl=True, ca=str(server.certificates.ca)) as client:
            assert client.get_children("/") == ["zookeeper"]


def test_it_may_want_a_certificate_of_its_clients(tmp_path):
    strangers = Certificates(tmp_path)
    with ZooKeeperServer(tls=True, client_certificates=True) as server:
        mine = server.certificates
        context = ssl.create_default_context(cafile=mine.ca)
        with pytest.raises(OSError, match=r"certificate required|bad certificate|reset|EOF"):
            greeted(server, context)
        context.load_cert_chain(strangers.client, strangers.client_key)
        with pytest.raises(OSError, match=r"unknown|certificate|reset|EOF"):
            greeted(server, context)
        context.load_cert_chain(mine.client, mine.client_key)
        assert greeted(server, context) == b"imok"


def greeted(server, context):
    with (
        socket.create_connection((server.host, server.port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"ruok")
        return connection.recv(4)


def test_a_digest_user_alone_may_do_what_the_acl_allows(server):
    mine = [make_digest_acl("locker", "secret", all=True)]
    with client_of(server, auth_data=[("digest", "locker:secret")]) as client:
        client.create("/mine", acl=mine)
        client.create("/mine/node")
    with client_of(server) as nobody, pytest.raises(NoAuthError):
        nobody.create("/mine/other")
    with (
        client_of(server, auth_data=[("digest", "locker:wrong")]) as other,
        pytest.raises(NoAuthError),
    ):
        other.get_children("/mine")
    assert children(server, "/mine") == ["node"]


def test_users_log_in_by_sasl():
    pytest.importorskip("puresasl", reason="kazoo[sasl]")
    login = {"mechanism": "DIGEST-MD5", "username": "locker", "password": "secret"}
    with ZooKeeperServer(users={"locker": "secret"}) as server:
        with client_of(server, sasl_options=dict(login)) as client:
            client.create("/mine", acl=[make_acl("sasl", "locker", all=True)])
        with client_of(server) as nobody, pytest.raises(NoAuthError):
            nobody.get_children("/mine")
        wrong = KazooClient(server.address, sasl_options={**login, "password": "wrong"})
        lost = threading.Event()
        wrong.add_listener(lambda state: lost.set() if state == "LOST" else None)
        wrong.start_async()
        assert lost.wait(10)
        wrong.stop()
        wrong.close()


def test_it_may_turn_away_who_has_not_logged_in():
    users = {"locker": "secret"}
    with (
        ZooKeeperServer(users=users, enforce_auth_enabled="true", enforce_auth_schemes="sasl") as server,
        client_of(server) as nobody,
        pytest.raises((SessionClosedRequireSaslError, ConnectionLoss)),
    ):
        nobody.get_children("/")


def test_three_members_elect_another_leader_and_keep_what_they_know():
    with ZooKeeperEnsemble() as ensemble:
        assert re.fullmatch(
            r"zookeeper://127.0.0.1:\d+,127.0.0.1:\d+,127.0.0.1:\d+/chroot", ensemble.url("/chroot")
        )
        first = ensemble.leader()
        assert len(ensemble.members) == 3
        assert [first in ensemble.followers(), len(ensemble.followers())] == [False, 2]
        put(ensemble.followers()[0], "/node")
        second = ensemble.kill_leader()
        assert second is not first
        put(second, "/other")
        first.start()
        ensemble.until_healthy()
        assert first in ensemble.running
        with first.connect() as client:
            client.sync("/")
            assert {"node", "other"} <= set(client.get_children("/"))


def test_a_paused_leader_is_replaced_and_follows_when_it_goes_on():
    with ZooKeeperEnsemble() as ensemble:
        first = ensemble.leader()
        first.pause()
        ensemble.until_healthy()
        assert ensemble.leader() is not first
        put(ensemble.leader(), "/node")
        first.resume()
        ensemble.until_healthy()
        assert first in ensemble.followers()


def test_without_a_majority_there_is_no_leader_and_no_answer():
    with ZooKeeperEnsemble() as ensemble:
        last = ensemble.followers()[0]
        for each in ensemble.members:
            if each is not last:
                each.kill()
        until(lambda: last.mode is None, "the last one misses its leader")
        with pytest.raises(ServerFailed, match="no leader"):
            ensemble.leader()
        assert not last.ready()
        for each in ensemble.members:
            if each is not last:
                each.start(wait=False)
        ensemble.until_healthy()


def test_a_follower_cut_from_its_leader_answers_pings_and_nothing_that_takes_the_leader():
    with ZooKeeperEnsemble(proxied=True, syncLimit=5) as ensemble:
        follower = ensemble.followers()[0]
        with follower.session() as session, follower.session(patience=0.3) as other:
            ensemble.cut_off(follower)
            session.ping()
            with pytest.raises(TimeoutError):
                other.sync()
            with pytest.raises(TimeoutError):
                follower.session(patience=0.1)
            session.ping()
            until(lambda: follower.mode is None, "it gives up")
            with pytest.raises(ConnectionResetError):
                session.ping()
        put(ensemble.leader(), "/node")
        ensemble.heal()
        ensemble.until_healthy()
        with follower.connect() as client:
            client.sync("/")
            assert client.exists("/node")


TICK, TIMEOUT = 0.5, 4.0


@pytest.fixture
def proxied():
    with ZooKeeperEnsemble(proxied=True, tick=TICK, syncLimit=20) as ensemble:
        yield ensemble


def wait(ensemble):
    time.sleep(TICK)


def freeze(ensemble):
    """Have the leader stand still for longer than a tick; what comes next is sent to it before it goes on."""
    leader = ensemble.leader()
    leader.pause()
    time.sleep(TICK)
    threading.Timer(0.1, leader.resume).start()


def proven(ensemble, *gaps):
    """Whether the leader knew of a session when the first of some syncs was sent, these gaps between them.

    Each sync is answered; the client is silent before the first, and the leader hears nothing after the last.
    The follower answers the client's pings to the end.
    """
    ensemble.heal()
    leader = ensemble.until_healthy()
    follower = ensemble.followers()[0]
    with follower.session(timeout=TIMEOUT) as session:
        time.sleep(TIMEOUT / 2)
        sent = time.monotonic()
        for gap in gaps:
            session.sync()
            gap(ensemble)
        ensemble.cut_off_at_request(follower)
        session.sync()
        ensemble.cut_off(follower)
        # Its follower, which does not know yet, answers. (A silent connection it would close meanwhile.)
        until(
            lambda: session.ping() and f"{session.id:#x}" not in leader.word("dump"),
            "the leader expires the session",
        )
        lived = time.monotonic() - sent
    return lived >= TIMEOUT


def test_two_answered_syncs_a_tick_apart_prove_what_one_does_not(proxied):
    """The behaviour of servers on which validity depends in the ZooKeeper store."""
    assert proven(proxied, wait)
    # By chance the leader may have asked its follower just then.
    assert not all(proven(proxied) for _ in range(5))


def test_a_leader_that_freezes_between_two_syncs_takes_a_third(proxied):
    """The leader answers the second `sync` before it asks, late, which sessions the follower has heard of."""
    assert proven(proxied, freeze, wait)
    assert not all(proven(proxied, freeze) for _ in range(5))


def test_a_lagging_follower_shows_the_past():
    with ZooKeeperEnsemble(proxied=True) as ensemble:
        follower = ensemble.followers()[0]
        with follower.connect() as late, ensemble.leader().connect() as client:
            ensemble.lag(follower, 0.5)
            client.create("/node")
            assert late.exists("/node") is None
            late.sync("/")
            assert late.exists("/node")
        ensemble.heal()
        assert ensemble.until_healthy() is ensemble.leader()


@pytest.fixture
def proxy(server):
    with ZooKeeperProxy((server.host, server.port)) as proxy:
        yield proxy


def test_a_proxy_counts_what_is_asked_through_it(proxy):
    with client_of(proxy) as client:
        client.create("/node")
        client.create_async("/other", include_data=True).get(5)
        for _ in range(3):
            client.sync("/")
    wanted = {"create": 1, "create2": 1, "sync": 3, "closeSession": 1}
    assert {kind: proxy.asked[kind] for kind in wanted} == wanted
    assert proxy.opened == 1


@pytest.mark.parametrize("delivered", [True, False])
def test_a_proxy_breaks_at_a_request_or_at_its_answer(server, proxy, delivered):
    with client_of(proxy) as client:
        session = client.client_id
        client.create("/node")
        broken = proxy.break_at("delete", delivered=delivered)
        with pytest.raises(ConnectionLoss):
            client.delete("/node")
        assert broken.is_set()
        assert children(server) == ([] if delivered else ["node"])
        until(lambda: client.connected, "it comes back")
        assert client.client_id == session
        client.create("/another")


def test_a_held_proxy_is_silent_and_loses_nothing(server, proxy):
    with client_of(proxy) as client:
        proxy.hold(to_server=False)
        answer = client.create_async("/node")
        until(lambda: children(server) == ["node"], "the server has it")
        assert not answer.ready()
        proxy.heal()
        assert answer.get(5) == "/node"


def test_a_cut_proxy_lets_nobody_through_until_it_is_whole(proxy):
    with client_of(proxy) as client:
        lost = threading.Event()
        client.add_listener(lambda state: lost.set() if state == "SUSPENDED" else None)
        proxy.cut()
        assert lost.wait(5)
        opened = proxy.opened
        until(lambda: proxy.opened > opened, "it tries again")
        assert not client.connected
        proxy.heal()
        until(lambda: client.connected, "it comes back")


def test_a_proxy_to_nobody_refuses(server, proxy):
    server.kill()
    with pytest.raises(OSError, match=r"reset|closed"):
        Session((proxy.host, proxy.port))


def test_a_proxy_takes_its_time(server):
    with (
        ZooKeeperProxy((server.host, server.port), delay=0.1) as proxy,
        Session((proxy.host, proxy.port)) as session,
    ):
        sent = time.monotonic()
        session.ping()
        assert time.monotonic() - sent >= 0.2


def test_nothing_is_left_of_a_proxy(server):
    threads = {*threading.enumerate()}
    with ZooKeeperProxy((server.host, server.port)) as proxy:
        session = Session((proxy.host, proxy.port))
    with pytest.raises(OSError, match=r"reset|closed"):
        session.ping()
    session.hang_up()
    assert threads.issuperset(threading.enumerate())
    with pytest.raises(ConnectionRefusedError):
        Session((proxy.host, proxy.port))
