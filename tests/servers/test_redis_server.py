"""The Redis servers that the tests of the Redis store run on, themselves."""

import ssl

import pytest

redis = pytest.importorskip("redis")

from lockkit.testing.processes import (  # noqa: E402
    ServerFailed,
    ServerMissing,
    find_program,
    scratch_folder,
    until,
)
from lockkit.testing.server_clock import ServerClock  # noqa: E402
from support.servers.certificates import Certificates  # noqa: E402
from support.servers.redis import RedisServer  # noqa: E402
from support.servers.redis_groups import RedisCluster, RedisSentinels  # noqa: E402


def installed():
    for name in ("redis-server", "valkey-server"):
        try:
            find_program(name)
        except ServerMissing:
            yield pytest.param(name, marks=pytest.mark.skip(f"{name} is not installed"))
        else:
            yield name


@pytest.fixture(params=list(installed()))
def program(request):
    return request.param


@pytest.fixture
def server(program):
    with RedisServer(program=program) as server:
        yield server


def asked(url, **options):
    with redis.Redis.from_url(url, **options) as client:
        return client.ping()


def test_it_answers_on_its_port_and_on_its_socket(server):
    assert asked(server.url())
    assert asked(server.socket_url(db=1))
    assert server.cli("CONFIG", "GET", "bind") == [b"bind", b"127.0.0.1"]


def test_only_its_user_can_enter_its_folder_and_it_writes_no_data_there(server):
    assert server.folder.stat().st_mode & 0o777 == 0o700
    assert server.cli("CONFIG", "GET", "save") == [b"save", b""]
    assert server.cli("CONFIG", "GET", "appendonly") == [b"appendonly", b"no"]


def test_answers_come_as_they_are(server):
    assert server.cli("HSET", "h", "field", 1) == 1
    assert server.cli("HGETALL", "h") == [b"field", b"1"]
    assert server.cli("GET", "h2") is None
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        server.cli("GET", "h")


def test_further_lines_of_its_configuration():
    with RedisServer(maxclients=50, user=["guest on >secret ~* +ping", "other on nopass +@all"]) as server:
        assert server.cli("CONFIG", "GET", "maxclients") == [b"maxclients", b"50"]
        assert asked(server.url(user="guest", password="secret"))
        with pytest.raises(redis.AuthenticationError):
            asked(server.url(user="guest", password="wrong"))


def test_a_bad_configuration_is_told_with_the_servers_own_words():
    with pytest.raises(ServerFailed, match="many"):
        RedisServer(maxclients="many")


def test_a_login_for_the_command_line():
    with RedisServer(requirepass="secret", login=("default", "secret")) as server:
        assert server.cli("PING") == b"PONG"
        with pytest.raises(redis.AuthenticationError):
            asked(server.url())


@pytest.mark.parametrize("lose_data", [True, False])
def test_a_restart_keeps_the_port_and_keeps_or_loses_the_data(server, lose_data):
    server.cli("SET", "key", "value")
    port, pid = server.port, server.pid
    server.restart(lose_data=lose_data)
    assert (server.port, server.alive) == (port, True)
    assert server.pid != pid
    assert server.cli("GET", "key") == (None if lose_data else b"value")
    server.kill()
    assert not server.alive
    server.start()
    assert server.cli("GET", "key") is None, "a crash loses what no configuration made it write"


def test_a_paused_one_does_not_answer_until_it_goes_on(server):
    server.pause()
    with pytest.raises(redis.TimeoutError):
        asked(server.url(), socket_timeout=0.1, retry=None)
    server.resume()
    assert asked(server.url())


def test_a_paused_one_can_be_stopped(server):
    server.pause()
    server.stop()
    assert not server.alive


def test_its_clock_moves_and_keys_expire_by_it(program):
    with RedisServer(program=program, clock=True) as server:
        assert abs(server.time() - server.clock.now()) < 60
        server.cli("SET", "key", "value", "PX", 3_600_000)
        before = server.time()
        server.clock.step(3500)
        assert 3500 <= server.time() - before < 3560
        assert 40_000 < server.cli("PTTL", "key") <= 100_000
        server.clock.step(101)
        assert server.cli("GET", "key") is None
        assert 3601 <= server.cli("EVAL", "return redis.call('TIME')[1] - ARGV[1]", 0, int(before)) < 3660
        server.clock.step(-10_000)
        assert server.time() < before


def test_its_clock_stands_still(program):
    with RedisServer(program=program, clock=True) as server:
        server.clock.stand(2_000_000_000.25)
        assert {server.time() for _ in range(100)} == {2_000_000_000.25}
        server.clock.step(0.5)
        assert server.time() == 2_000_000_000.75 == server.clock.now()
        server.clock.reset()
        assert server.time() < 2_000_000_000


def test_two_servers_may_share_a_clock(tmp_path):
    clock = ServerClock(tmp_path)
    with RedisServer(clock=clock) as one, RedisServer(clock=clock) as other:
        clock.stand(2_000_000_000)
        assert one.time() == other.time() == 2_000_000_000


def test_tls_wants_a_certificate_of_its_own_authority(program, tmp_path):
    strangers = Certificates(tmp_path)
    with RedisServer(program=program, tls=True) as server:
        mine = server.certificates
        files = {"ssl_certfile": mine.client, "ssl_keyfile": mine.client_key, "ssl_ca_certs": mine.ca}
        assert server.url().startswith("rediss://")
        assert asked(server.url(), **{key: str(path) for key, path in files.items()})
        with pytest.raises(redis.ConnectionError):
            asked(server.url(), ssl_ca_certs=str(mine.ca), retry=None)
        with pytest.raises(redis.ConnectionError):
            asked(server.url(), **{**files, "ssl_ca_certs": str(strangers.ca)}, retry=None)
        assert server.cli("PING") == b"PONG"
    with RedisServer(program=program, tls=True, tls_auth_clients="optional") as server:
        assert asked(server.url(), ssl_ca_certs=str(server.certificates.ca), ssl_cert_reqs=ssl.CERT_REQUIRED)


def test_a_missing_program_is_named_with_what_installs_it():
    with pytest.raises(ServerMissing, match=r"no-such-server is not installed; run: make servers"):
        RedisServer(program="no-such-server")


def test_a_scratch_folder_is_for_this_user_only():
    folder = scratch_folder("test")
    try:
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        folder.rmdir()


def test_sentinels_make_the_replica_the_primary(program):
    with RedisSentinels(program=program) as group:
        first = group.primary
        first.cli("SET", "key", "value")
        assert first.cli("WAIT", 1, 5000) == 1
        second = group.fail_over()
        assert second is not first
        assert second.cli("GET", "key") == b"value"


def test_a_cluster_spreads_its_keys(program):
    with RedisCluster(program=program) as cluster:
        keys = [f"{{{at}}}" for at in range(30)]
        assert {cluster.node_of(key) for key in keys} == set(cluster.nodes)
        for key in keys:
            assert cluster.node_of(key).cli("SET", key, "value") == b"OK"


def test_a_slot_of_a_cluster_that_has_moved_may_be_moved_back_at_once(program):
    """Every node has heard of a move when it is over, or the way back would not count."""
    with RedisCluster(program=program) as cluster:
        here, there, _ = cluster.nodes
        for _ in range(20):
            for source, target in ((here, there), (there, here)):
                cluster.move(0, source, target)
                assert cluster.agrees()


HOURS = [3600.0, -7200.0]


def test_the_nodes_of_a_cluster_may_share_a_clock_whose_steps_they_do_not_take_for_silence(program):
    with RedisCluster(program=program, clock=True) as cluster:
        for step in HOURS:
            cluster.clock.step(step)
            heard = [pongs(node) for node in cluster.nodes]
            until(lambda heard=heard: sum(map(pongs, cluster.nodes)) > sum(heard), "somebody is heard")
            for node in cluster.nodes:
                assert abs(node.time() - cluster.clock.now()) < 60
                assert b"cluster_state:ok" in node.cli("CLUSTER", "INFO")


def pongs(node):
    facts = dict(line.split(b":") for line in node.cli("CLUSTER", "INFO").split())
    return int(facts.get(b"cluster_stats_messages_pong_received", 0))


def test_a_primary_and_its_replica_may_share_a_clock_whose_steps_they_do_not_take_for_silence(program):
    with RedisSentinels(program=program, clock=True) as group:
        for step in HOURS:
            group.clock.step(step)
            assert [abs(each.time() - group.clock.now()) < 60 for each in group.pair] == [True, True]
            group.primary.cli("SET", "key", step)
            assert group.primary.cli("WAIT", 1, 5000) == 1
        assert group.primary is group.pair[0]
