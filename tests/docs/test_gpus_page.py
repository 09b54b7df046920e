"""The commands on the page about GPUs run as they stand there, on simulated cards."""

from __future__ import annotations

import re
import shlex

import pytest

PAGE = "docs/howto/gpus.md"


@pytest.fixture
def commands(pages):
    """The command lines of the page, in its order."""
    found = re.findall(r"^\$ (lockkit .*)$", pages[PAGE], re.MULTILINE)
    assert len(found) == 5
    return found


def test_the_commands_for_gpus_do_what_the_page_says(commands, program):
    told = [
        program(
            f"from lockkit.cli.main import run\nraise SystemExit(run({shlex.split(line)[1:]!r}))"
        ).stdout.replace("\n", " ")
        for line in commands
    ]
    assert "2 GPUs: 2 free" in told[0]
    assert '"state": "free"' in told[1]
    assert "Xid 79 twice today" in told[2]
    assert "1 free, 1 quarantined" in told[3]
    assert "can be given out again" in told[4]
