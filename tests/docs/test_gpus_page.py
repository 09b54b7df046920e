"""The page about GPUs, followed step by step on simulated cards."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lockkit.gpu.simulated import STATE_FILE
from lockkit.testing.processes import until
from support.pages import section, table

PAGE = "docs/howto/gpus.md"
ADMINISTRATOR = "docs/howto/all-users.md"
SLOW = 60
"""Seconds that a busy machine may take to start ten programs."""
WALK = "## Eight GPUs among ten people, in five minutes"


@pytest.fixture
def environ(tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("LOCKKIT_") and key != "CUDA_VISIBLE_DEVICES"
    }
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return clean | {
        "HOME": str(tmp_path), "LOCKKIT_STATE_DIR": str(state), "LOCKKIT_CONFIG": "/dev/null",
        "PATH": path, "COLUMNS": "200",
    }  # fmt: skip


@pytest.fixture
def shell(environ, tmp_path):
    """A shell that is told lines, as in a terminal; all that it started is gone when the test is."""
    process = subprocess.Popen(
        ["bash"],
        env=environ,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )

    def tell(line):
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        return process.stdout

    yield tell
    os.killpg(process.pid, signal.SIGKILL)  # what the wrappers run dies with them
    process.communicate()


@pytest.fixture
def once(environ, tmp_path):
    """Run one line in a shell of its own."""

    def run(line, **more):
        return subprocess.run(
            ["bash", "-c", line],
            env=environ | more,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def lines(text):
    return re.findall(r"^\$ (.*)$", text, re.MULTILINE)


def test_eight_gpus_among_ten_people(pages, shell, once, environ):
    text = section(pages[PAGE], WALK)
    *_, simulate, jobs, look, more, kill = lines(text)
    shown = re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    host = dict([simulate.removeprefix("export ").split("=")])

    def cards():
        return json.loads(once("lockkit gpu ls --json", **host).stdout)["gpus"]

    out = shell(f"{simulate}\n{jobs}")
    first = {out.readline() for _ in range(8)}
    assert first == {f"a job has GPU {index}\n" for index in range(8)}
    until(lambda: [card["state"] for card in cards()] == ["held"] * 8, seconds=SLOW)
    last = shape(shown[0])[-1]
    until(lambda: shape(once(look, **host).stdout)[-1] == last, seconds=SLOW)  # the last two may come later
    assert shape(once(look, **host).stdout)[1] == shape(shown[0])[1]
    assert once(more, **host).returncode == 124
    waiting = says_first(more.replace("--timeout 1s", f"--timeout {SLOW}s"), environ | host)
    assert shape(waiting)[0].startswith(shape(shown[1])[0].partition("; GPU 1")[0])
    pid = cards()[0]["holders"][0]["owner"]["pid"]
    assert once(kill.replace("4711", str(pid))).returncode == 0
    assert out.readline() == "a job has GPU 0\n"


def says_first(line, environ):
    """The first line of a command that says what it waits for; the command is ended then.

    A command whose timeout ends before it has looked at all cards has no such line.
    """
    with subprocess.Popen(shlex.split(line), env=environ, stderr=subprocess.PIPE, text=True) as process:
        said = next((said for said in process.stderr if said.startswith("waiting for")), "")
        process.terminate()
        process.communicate()
    return said


def shape(text):
    """A text without the parts that differ from run to run: owners, times, reasons, widths of columns."""
    text = re.sub(r"\S+@\S+ pid \d+", "WHO", text)
    text = re.sub(r" held +\S+", " held WHO", text)
    text = re.sub(r"(?:[\d.]+ s|just now)(, \d+ MiB used)?, for: \w+", r"SINCE\1", text)
    text = re.sub(r" +GPU-[0-9a-f]{8}$", "", text, flags=re.MULTILINE)
    return re.sub(r" +", " ", text).splitlines()


def test_each_row_of_what_to_ask_for_is_granted(pages, once, environ):
    wide = {"name": "NVIDIA H100 80GB HBM3", "memory": "80GiB"}
    state = {str(index): wide for index in range(8)}
    Path(environ["LOCKKIT_STATE_DIR"], STATE_FILE).write_text(json.dumps(state))
    rows = [row[1].strip("`") for row in table(section(pages[PAGE], "## What to ask for"))[1:]]
    assert len(rows) == 10
    for row in rows:
        command = re.sub(r"python \w+\.py", "true", row)
        done = once(command, LOCKKIT_GPU_SIMULATE="8")
        assert done.returncode == 0, (command, done.stderr)


def test_what_a_refused_request_says_is_in_the_table_of_reasons(pages, once, environ):
    told = [row[0].strip("`") for row in table(section(pages[PAGE], "## Why do I get no card?"))[1:]]
    bob = {"pid": 4711, "user": "bob", "program": "jupyter", "memory": "12GiB"}
    full = {"memory": "6GiB", "used": "512MiB"}
    state = Path(environ["LOCKKIT_STATE_DIR"], STATE_FILE)
    state.write_text(json.dumps({"0": {"processes": [bob]}, "2": full}))
    once('lockkit gpu quarantine 1 --reason "it hums"', LOCKKIT_GPU_SIMULATE="3")
    said = once("lockkit run --gpu 2 --no-wait --private -- true", LOCKKIT_GPU_SIMULATE="3").stderr
    said += once(
        "lockkit run --gpu 1 --min-free 5.3GiB --no-wait --private -- true", LOCKKIT_GPU_SIMULATE="3"
    ).stderr
    said = re.sub(r"quarantined by \S+@\S+:", "quarantined by ann@box:", said)
    for reason in told:
        if reason.startswith(("busy", "quarantined", "free, but", "only")):
            assert f": {reason}" in said
    for option in ("--allow-busy", "lockkit gpu clear"):
        assert option in said


def test_both_pages_name_the_same_command_of_the_administrator(pages):
    (init,) = [line for line in lines(section(pages[PAGE], WALK)) if "host init" in line]

    assert init in lines(section(pages[ADMINISTRATOR], "## GPUs"))
    assert "--private" in section(pages[ADMINISTRATOR], "## GPUs")


def test_the_commands_of_the_quarantine_do_what_the_page_says(pages, program):
    commands = lines(section(pages[PAGE], "## Keep a card from being given out"))
    mark, look, clear = [
        program(
            f"from lockkit.cli.main import run\nraise SystemExit(run({shlex.split(line)[1:]!r}))"
        ).stdout.replace("\n", " ")
        for line in commands
    ]
    assert "Xid 79 twice today" in mark
    assert "1 free, 1 quarantined" in look
    assert "can be given out again" in clear


def test_the_page_adopts_a_job(pages, program, tmp_path):
    (line,) = (
        line for line in lines(section(pages[PAGE], "## Adopt a job that already runs")) if " adopt " in line
    )
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
