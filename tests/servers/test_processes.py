"""The ports of servers under test."""

import os
from pathlib import Path

from lockkit.testing.children import Child
from lockkit.testing.processes import free_port


def test_a_port_that_was_given_out_is_not_given_again_while_its_server_may_be_down():
    ports = [free_port() for _ in range(50)]

    assert len(set(ports)) == 50


def test_no_port_is_one_that_a_connection_may_be_given():
    lowest, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()

    assert free_port() < int(lowest)


def test_no_two_processes_have_the_same_ports():
    mine, here = os.getpid(), free_port()

    def play(parent, pid):
        os.getpid = lambda: pid
        parent.tell(free_port())
        parent.hear()

    # As if their pids differed by a multiple of the number of processes that have ports of their own.
    others = [Child(lambda parent, pid=mine + 110 * n: play(parent, pid)) for n in (1, 2)]
    ports = [here, *(child.hear() for child in others)]
    for child in others:
        child.kill()

    assert len({port // 200 for port in ports}) == 3
