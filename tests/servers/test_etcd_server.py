"""The etcd servers that the tests of the etcd store run on, themselves."""

import contextlib
import http.client
import json
import re
import ssl

import pytest

from lockkit.testing.processes import ServerFailed, ServerMissing, installed, until
from support.servers.certificates import Certificates
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import EtcdRefused, EtcdUser, covered
from support.servers.etcd_groups import EtcdCluster

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")
with_ctl = pytest.mark.skipif(not installed("etcdctl"), reason="make servers")

NOT_FOUND, EXHAUSTED, DENIED, OUT_OF_RANGE, INVALID = 5, 8, 7, 11, 3  # gRPC's codes
LOCKER = EtcdUser("locker", "secret", {"locks/": "READWRITE"})


@pytest.fixture
def server():
    with EtcdServer() as server:
        yield server


def put(server, key, value=b"value", **options):
    return server.call("kv/put", {"key": key, "value": value}, **options)


def count(server, prefix, **options):
    answer = server.call("kv/range", {**covered(prefix), "count_only": True}, **options)
    return int(answer.get("count", 0))


@contextlib.contextmanager
def watch(server, **request):
    """The answers of one watch, as they come."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=5)
    with contextlib.closing(connection):
        connection.request("POST", "/v3/watch", json.dumps({"create_request": request}))
        response = connection.getresponse()
        yield (json.loads(line)["result"] for line in response)


def test_it_answers_where_its_url_says(server):
    put(server, b"key")
    assert server.url() == f"etcd://127.0.0.1:{server.port}"
    assert server.url(user="a b", password="p@ss") == f"etcd://a%20b:p%40ss@127.0.0.1:{server.port}"
    assert server.call("kv/range", {"key": b"key"})["kvs"][0]["value"] == "dmFsdWU="
    assert server.status()["leader"] == server.status()["header"]["member_id"]


@with_ctl
def test_its_command_line(server):
    put(server, b"key")
    assert server.ctl("get", "--print-value-only", "key") == "value\n"
    with pytest.raises(ServerFailed, match="no such word"):
        server.ctl("put", "no such word")


def test_nobody_else_can_enter_its_folder(server):
    assert server.folder.stat().st_mode & 0o777 == 0o700


def test_a_refusal_comes_with_its_code(server):
    with pytest.raises(EtcdRefused, match="lease not found") as refused:
        server.call("lease/revoke", {"ID": 5})
    assert (refused.value.status, refused.value.code) == (404, NOT_FOUND)


def test_a_bad_configuration_is_told_with_the_servers_own_words():
    with pytest.raises(ServerFailed, match="not defined: -no-such-flag"):
        EtcdServer(no_such_flag=1)


def test_the_environment_does_not_configure_it(monkeypatch):
    monkeypatch.setenv("ETCD_MAX_TXN_OPS", "no number")
    monkeypatch.setenv("ETCD_QUOTA_BACKEND_BYTES", "1")
    with EtcdServer() as server:
        put(server, b"key")


@pytest.mark.parametrize("lose_data", [True, False])
def test_a_restart_keeps_the_port_and_keeps_or_loses_the_data(server, lose_data):
    put(server, b"key")
    port, pid, revision = server.port, server.pid, server.revision
    server.restart(lose_data=lose_data)
    assert (server.port, server.alive) == (port, True)
    assert server.pid != pid
    assert count(server, "key") == (0 if lose_data else 1)
    assert server.revision == (1 if lose_data else revision)


def test_a_crash_loses_nothing(server):
    put(server, b"key")
    server.kill()
    assert not server.alive
    with pytest.raises(ConnectionRefusedError):
        count(server, "key")
    server.start()
    assert count(server, "key") == 1


def test_a_paused_one_does_not_answer_until_it_goes_on(server):
    server.pause()
    with pytest.raises(TimeoutError):
        server.call("kv/range", {"key": b"key"}, timeout=0.1)
    assert not server.ready()
    server.resume()
    assert count(server, "") == 0


def test_a_paused_one_can_be_stopped_and_started(server):
    server.pause()
    server.stop()
    assert not server.alive
    server.start()
    assert server.ready()


def test_tls_is_for_those_who_know_its_authority(tmp_path):
    strangers = Certificates(tmp_path)
    with EtcdServer(tls=True) as server:
        assert server.url().startswith("etcds://")
        assert count(server, "") == 0
        assert greeted(server, ssl.create_default_context(cafile=server.certificates.ca)) == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            greeted(server, ssl.create_default_context(cafile=strangers.ca))
        if installed("etcdctl"):
            assert "is healthy" in server.ctl("endpoint", "health")


def test_it_may_want_a_certificate_of_its_clients(tmp_path):
    strangers = Certificates(tmp_path)
    with EtcdServer(tls=True, client_certificates=True) as server:
        mine = server.certificates
        assert count(server, "") == 0
        context = ssl.create_default_context(cafile=mine.ca)
        with pytest.raises(OSError, match=r"certificate required|reset"):
            greeted(server, context)
        context.load_cert_chain(strangers.client, strangers.client_key)
        with pytest.raises(OSError, match=r"unknown ca|bad certificate|reset"):
            greeted(server, context)
        context.load_cert_chain(mine.client, mine.client_key)
        assert greeted(server, context) == 200


def greeted(server, context):
    connection = http.client.HTTPSConnection(server.host, server.port, context=context, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/health")
        return connection.getresponse().status


def test_a_user_may_do_what_its_role_allows():
    looker = EtcdUser("looker", "other", {"locks/": "READ"})
    with EtcdServer(users=[LOCKER, looker]) as server:
        put(server, b"elsewhere")
        put(server, b"locks/a", login=("locker", "secret"))
        assert count(server, "locks/", login=("looker", "other")) == 1
        for key, login in [(b"elsewhere", ("locker", "secret")), (b"locks/a", ("looker", "other"))]:
            with pytest.raises(EtcdRefused, match="permission denied") as refused:
                put(server, key, login=login)
            assert (refused.value.status, refused.value.code) == (403, DENIED)
        with pytest.raises(EtcdRefused, match="invalid user ID or password"):
            count(server, "locks/", login=("locker", "wrong"))


@pytest.mark.parametrize("lose_data", [True, False])
def test_users_outlive_a_restart(lose_data):
    with EtcdServer(users=[LOCKER]) as server:
        server.restart(lose_data=lose_data)
        put(server, b"locks/a", login=("locker", "secret"))
        if installed("etcdctl"):
            assert server.ctl("user", "list").split() == ["locker", "root"]


def test_with_users_and_certificates_a_client_shows_one_without_a_name():
    with EtcdServer(tls=True, client_certificates=True, users=[LOCKER]) as server:
        put(server, b"locks/a", login=("locker", "secret"))
        mine = server.certificates
        context = ssl.create_default_context(cafile=mine.ca)
        for certificate, key, answer in [
            (mine.nameless, mine.nameless_key, b"permission denied"),
            (mine.client, mine.client_key, b"CommonName of client"),
        ]:
            context.load_cert_chain(certificate, key)
            connection = http.client.HTTPSConnection(server.host, server.port, context=context, timeout=5)
            with contextlib.closing(connection):
                connection.request("POST", "/v3/kv/range", '{"key": "AA=="}')
                assert answer in connection.getresponse().read()


def test_compaction_ends_what_reads_the_past(server):
    first = int(put(server, b"key")["header"]["revision"])
    put(server, b"key")
    put(server, b"key")
    assert server.compact() == server.revision == first + 2
    with pytest.raises(EtcdRefused, match="has been compacted") as refused:
        server.call("kv/range", {"key": b"key", "revision": first})
    assert (refused.value.status, refused.value.code) == (400, OUT_OF_RANGE)
    with watch(server, key="a2V5", start_revision=first) as answers:
        assert next(answers)["created"]
        last = next(answers)
    assert (last["canceled"], last["compact_revision"]) == (True, str(first + 2))
    with watch(server, key="a2V5", start_revision=first + 2) as answers:
        assert next(answers)["created"]
        assert next(answers)["events"][0]["kv"]["mod_revision"] == str(first + 2)


def fill(server):
    while True:
        put(server, b"key", b"x" * (1 << 15))


def test_a_full_one_raises_its_alarm_and_refuses_what_would_fill_it_further():
    with EtcdServer(quota_backend_bytes=1 << 18) as server:
        server.call("lease/grant", {"TTL": 60, "ID": 5})
        with pytest.raises(EtcdRefused, match="database space exceeded") as refused:
            fill(server)
        assert (refused.value.status, refused.value.code) == (429, EXHAUSTED)
        assert server.alarms() == ["NOSPACE"]
        server.call("lease/revoke", {"ID": 5})

        server.restart(lose_data=False)  # it starts in spite of the alarm
        server.compact()
        server.call("maintenance/defragment")
        server.disarm()
        assert server.alarms() == []
        put(server, b"key")


def test_a_missing_program_is_named_with_what_installs_it():
    with pytest.raises(ServerMissing, match=r"no-such-server is not installed; run: make servers"):
        EtcdServer(program="no-such-server")


def test_three_members_elect_another_leader_and_keep_what_they_know():
    with EtcdCluster() as cluster:
        assert re.fullmatch(r"etcd://127.0.0.1:\d+,127.0.0.1:\d+,127.0.0.1:\d+", cluster.url())
        first = cluster.leader()
        assert len(cluster.members) == 3
        assert [first in cluster.followers(), len(cluster.followers())] == [False, 2]
        put(cluster.followers()[0], b"key")
        second = cluster.kill_leader()
        assert second is not first
        put(second, b"other")
        first.start()
        cluster.until_healthy()
        assert first in cluster.running
        assert count(first, "") == 2


def test_a_paused_leader_is_replaced_and_follows_when_it_goes_on():
    with EtcdCluster() as cluster:
        first = cluster.leader()
        first.pause()
        cluster.until_healthy()
        assert cluster.leader() is not first
        put(cluster.leader(), b"key")
        first.resume()
        cluster.until_healthy()
        assert first in cluster.followers()


def test_without_a_majority_there_is_no_leader_and_no_answer():
    with EtcdCluster() as cluster:
        last = cluster.followers()[0]
        for each in cluster.members:
            if each is not last:
                each.kill()
        until(lambda: "leader" not in last.status(), "the last one misses its leader")
        with pytest.raises(ServerFailed, match="no leader"):
            cluster.leader()
        assert not last.ready()
        for each in cluster.members:
            if each is not last:
                each.start(wait=False)
        cluster.until_healthy()


def test_a_cluster_knows_users_on_every_member():
    with EtcdCluster(users=[LOCKER]) as cluster:
        assert cluster.url(user="locker", password="secret").startswith("etcd://locker:secret@127.0.0.1:")
        for each in cluster.members:
            put(each, b"locks/a", login=("locker", "secret"))
            with pytest.raises(EtcdRefused, match="permission denied"):
                put(each, b"elsewhere", login=("locker", "secret"))
