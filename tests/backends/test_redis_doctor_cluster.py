"""Findings of the doctor about a Cluster: about each node, with its address."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

pytest.importorskip("redis")

import lockkit
from lockkit.cli.main import run
from support.servers.redis import RedisServer
from support.servers.redis_groups import RedisCluster

USER = "locker on >secret ~lockkit:* &lockkit:* +@all"


@pytest.fixture
def cluster():
    with RedisCluster(cluster_require_full_coverage="no", user=[USER]) as made:
        yield made


def look(cluster):
    """Return doctor's findings, with time for each node, which gets only a share of the request timeout."""
    url = cluster.url().replace("//", "//locker:secret@")
    with lockkit.connect(url, request_timeout=5.0) as client:
        return client.check()


def test_findings_name_the_node_that_they_are_about(cluster):
    found = look(cluster)
    for node in cluster.nodes:
        said = [each.check for each in found if each.message.startswith(f"{node.address}: ")]
        assert sorted(said) == ["failover", "memory", "persistence", "rights", "server"]
    assert [each.severity for each in found if each.check == "cluster"] == ["ok"]

    for node in cluster.nodes[1:]:  # the probe is tried on every node
        node.cli("ACL", "SETUSER", "locker", "-zadd")
    wrong = [each.message for each in look(cluster) if each.severity == "error"]
    assert len(wrong) == 2
    for node in cluster.nodes[1:]:
        assert sum(each.startswith(f"{node.address}: ") and "ZADD" in each for each in wrong) == 1


def test_slots_that_no_node_has_are_an_error(cluster):
    for node in cluster.nodes:
        node.cli("CLUSTER", "DELSLOTSRANGE", 0, 99)
    (wrong,) = (each for each in look(cluster) if each.severity == "error")
    assert wrong.check == "cluster"
    assert "100 of 16384 slots" in wrong.message
    assert "CLUSTER" in wrong.hint


def test_a_node_that_is_away_is_an_error_and_the_others_are_looked_at(cluster):
    gone, *others = cluster.nodes  # the first, whose share is the smallest
    with ExitStack() as stack:
        gone.pause()
        stack.callback(gone.resume)
        found = look(cluster)
    gone.kill()
    for said in (found, look(cluster)):
        (wrong,) = [each for each in said if each.severity == "error"]
        assert wrong.check == "server"
        assert gone.address in wrong.message
        for node in others:
            assert sum(each.message.startswith(f"{node.address}: ") for each in said) == 5


def test_where_no_node_answers_that_is_raised(cluster):
    url = cluster.url().replace("//", "//locker:secret@")
    with lockkit.connect(url) as client:
        client.check()
        for node in cluster.nodes:
            node.kill()
        with pytest.raises(lockkit.BackendError):
            client.check()


def test_one_node_of_a_cluster_that_is_taken_for_a_server_says_so_and_speaks_of_no_observers():
    """Where it cannot be asked what it is; else it is refused at opening."""
    with RedisCluster(user=[USER], rename_command=['HELLO ""']) as cluster:
        for node in cluster.nodes:
            (found,) = (found for found in _alone(node) if found.severity == "error")
            assert found.check == "scripts"
            assert "part of a Cluster" in found.message
            assert "redis+cluster://" in found.hint
            assert "observers" not in found.hint


def test_the_doctor_says_of_a_node_that_is_taken_for_a_server_what_to_write(cluster, capsys):
    node = cluster.nodes[0]

    assert run(["doctor", "--url", node.url()]) == 2

    assert f"it is part of a Cluster (write redis+cluster://{node.address})" in capsys.readouterr().out


def _alone(node: RedisServer):
    with lockkit.connect(node.url(user="locker", password="secret")) as client:
        return client.check()
