"""The processes that name a claim in their environment, which anybody may write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid

import pytest

from lockkit.observe.survivors import survivors
from lockkit.protocol.outer import VARIABLE

_WAITS = "import sys; print(flush=True); sys.stdin.read()"


@pytest.fixture
def start():
    begun = []

    def begin(value):
        process = subprocess.Popen(
            [sys.executable, "-c", _WAITS],
            env={**os.environ, VARIABLE: value},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        begun.append(process)
        process.stdout.readline()
        return process.pid

    yield begin
    for process in begun:
        process.communicate()


def test_an_environment_of_lists_in_lists_hides_no_other_process(start):
    claim = uuid.uuid4().hex
    start("[" * 60_000 + f'"{claim}"')
    honest = start(json.dumps([{"claim_id": claim}]))
    assert [each.pid for each in survivors(claim)] == [honest]


EXECS = """
import os, sys
environ = dict(os.environ)
print(flush=True)
n = int(os.environ["AGAIN"])
environ["AGAIN"] = str(n - 1)
if n:
    os.execve(sys.executable, [sys.executable, "-S", "-E", "-c", os.environ["PROGRAM"]], environ)
sys.stdin.read()
"""


@pytest.mark.parametrize("large", ["", "x" * 100_000], ids=["small", "large"])
def test_a_process_that_begins_another_program_is_found_all_the_while(large):
    """While execve(2) is under way a process shows no environment, or the first part of a large one."""
    claim = uuid.uuid4().hex
    environ = {
        **os.environ,
        "LARGE": large,
        VARIABLE: json.dumps([{"claim_id": claim}]),
        "AGAIN": "150",
        "PROGRAM": EXECS,
    }
    with subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", EXECS],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        missed = 0
        for _ in range(300):
            missed += process.pid not in [one.pid for one in survivors(claim)]
        process.kill()
    assert missed == 0


FORKS = """
import os, select
print(flush=True)
while not select.select([0], [], [], 0.002)[0]:
    if os.fork():
        os._exit(0)
"""


def test_a_process_that_forks_another_and_ends_is_found_all_the_while():
    """A look's list of pids may lack both the process that ends before its turn, and the new one."""
    claim = uuid.uuid4().hex
    with subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", FORKS],
        env={**os.environ, VARIABLE: json.dumps([{"claim_id": claim}])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as first:
        first.stdout.readline()
        missed = sum(not survivors(claim) for _ in range(50))
        first.communicate()  # until the last of them has ended

    assert missed == 0
