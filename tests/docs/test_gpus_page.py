"""The commands on the page about GPUs run as they stand there, on simulated cards."""

from __future__ import annotations

import json
import re
import shlex
import subprocess

import pytest

PAGE = "docs/howto/gpus.md"


@pytest.fixture
def commands(pages):
    """The command lines of the page, in its order."""
    found = re.findall(r"^\$ (lockkit .*)$", pages[PAGE], re.MULTILINE)
    assert len(found) == 6
    return found


def test_the_commands_for_gpus_do_what_the_page_says(commands, program):
    told = [
        program(
            f"from lockkit.cli.main import run\nraise SystemExit(run({shlex.split(line)[1:]!r}))"
        ).stdout.replace("\n", " ")
        for line in commands
        if " adopt " not in line
    ]
    assert "2 GPUs: 2 free" in told[0]
    assert '"state": "free"' in told[1]
    assert "Xid 79 twice today" in told[2]
    assert "1 free, 1 quarantined" in told[3]
    assert "can be given out again" in told[4]


def test_the_page_adopts_a_job(commands, program, tmp_path):
    (line,) = (line for line in commands if " adopt " in line)
    config = "[gpu]\nsimulate = 2\n"
    with subprocess.Popen(["sleep", "60"]) as job:
        words = [str(job.pid) if word == "4711" else word for word in shlex.split(line)[1:]]
        assert str(job.pid) in words
        process = {"pid": job.pid, "program": "sleep", "memory": "3GiB", "while_alive": True}
        program("")  # makes the folder
        (tmp_path / "state/simulated-gpus.json").write_text(json.dumps({"1": {"processes": [process]}}))
        done = program(f"from lockkit.cli.main import run\nraise SystemExit(run({words!r}))", config=config)
        assert done.stdout.startswith("GPU 1 is held for ")
        look = "from lockkit.cli.main import run\nraise SystemExit(run(['gpu', 'ls']))"
        assert "2 GPUs: 1 free, 1 held" in program(look, config=config).stdout
        job.kill()
