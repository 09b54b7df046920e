"""Environment variables that are set for a while."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lockkit.lib.environment import EnvironmentSet

PROGRAM = """
import logging, multiprocessing, os
from lockkit.lib.environment import EnvironmentSet

def seen(_):
    return os.environ.get("LOCKKIT_TEST")

def ask(how):
    with multiprocessing.get_context(how).Pool(1) as pool:
        return pool.map(seen, [None])[0]

if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    for number in "123":
        with EnvironmentSet({"LOCKKIT_TEST": number}):
            print(*(ask(how) for how in ("fork", "spawn", "forkserver")), flush=True)
"""


def test_variables_are_set_and_put_back(monkeypatch):
    monkeypatch.setenv("A", "1")
    monkeypatch.setenv("B", "2")
    monkeypatch.delenv("C", raising=False)
    with EnvironmentSet({"A": "3", "B": None, "C": "4"}) as variables:
        assert variables["A"] == os.environ["A"] == "3"
        assert ("B" in os.environ, os.environ["C"]) == (False, "4")
    assert (os.environ["A"], os.environ["B"], "C" in os.environ) == ("1", "2", False)


def test_what_cannot_be_set_leaves_all_as_it_was(monkeypatch):
    monkeypatch.setenv("A", "1")
    with pytest.raises(ValueError, match="null"), EnvironmentSet({"A": "2", "C": "\0"}):
        pass
    assert os.environ["A"] == "1"


def test_a_fork_server_that_runs_already_is_told_of(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "1 1 1\n2 2 1\n3 3 1\n"  # the server has the environment of its start
    [told] = [line for line in done.stderr.splitlines() if "fork server" in line]
    assert "(LOCKKIT_TEST)" in told
