"""The ports of servers under test."""

from pathlib import Path

from lockkit.testing.processes import free_port


def test_a_port_that_was_given_out_is_not_given_again_while_its_server_may_be_down():
    ports = [free_port() for _ in range(50)]

    assert len(set(ports)) == 50


def test_no_port_is_one_that_a_connection_may_be_given():
    lowest, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()

    assert free_port() < int(lowest)
