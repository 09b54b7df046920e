"""``lockkit run`` that loses terminal, shell, debugger or memory: its lock stays while its command lives."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

RUNS = "echo $$ > pid; exec sleep 60"
DEAF = "trap 'echo heard > heard' HUP; echo $$ > pid; while :; do sleep 0.05; done"


@pytest.fixture
def is_busy(lockkit, job):
    return lambda: lockkit("run", *job.words, "--no-wait", "--", "true").returncode == 75


@pytest.fixture
def over(lockkit, job, alive):
    """Waits until the command is dead and what it held is free, and returns the exit code of its ``run``."""

    def over():
        pid = int(lockkit.file("pid"))
        lockkit.until(lambda: not alive(pid))
        lockkit.until((lockkit.folder / "report").exists)
        assert lockkit("run", *job.words, "--timeout", "30s", "--", "true").returncode == 0
        return json.loads((lockkit.folder / "report").read_text())["exit_code"]

    return over


def words(lockkit, job, script, *before):
    """The words of a ``run`` that writes a report when it ends."""
    return [*before, *lockkit.line("run", *job.words, "--report", "report", "--", "sh", "-c", script)]


def in_front(lockkit, job, shell, script, *before):
    """Have a shell run it, and wait until the command runs; the pid of the ``run``."""
    shell.type(shlex.join(words(lockkit, job, script, *before)) + "\n")
    return began(lockkit, job)


def began(lockkit, job):
    """Wait until the command runs; the pid of the ``run`` around it."""
    lockkit.file("pid")
    (claim,) = lockkit.claims(job.queue)
    return claim["owner"]["pid"]


@pytest.mark.parametrize("leader", ["run", "shell"])
def test_a_hang_up_ends_the_command(lockkit, tty, request, job, over, leader):
    if leader == "run":
        terminal = tty(*words(lockkit, job, RUNS))
        began(lockkit, job)
    else:
        terminal = request.getfixturevalue("bash")
        in_front(lockkit, job, terminal, RUNS)

    terminal.hang_up()

    assert over() == 128 + signal.SIGHUP


def test_a_hang_up_ends_a_job_that_is_stopped(lockkit, bash, job, over):
    in_front(lockkit, job, bash, RUNS)
    bash.type("\x1a")
    bash.expect("Stopped")

    bash.hang_up()

    # bash sends a stopped job HUP, CONT and TERM; the command dies of either, as without lockkit.
    assert over() in (128 + signal.SIGHUP, 128 + signal.SIGTERM)


def test_a_command_that_outlives_a_hang_up_keeps_what_it_holds(lockkit, tty, job, alive, is_busy, over):
    terminal = tty(*words(lockkit, job, DEAF))
    wrapper = began(lockkit, job)

    terminal.hang_up()

    lockkit.file("heard")
    assert is_busy()
    assert alive(int(lockkit.file("pid")))
    os.kill(wrapper, signal.SIGTERM)
    assert over() == 128 + signal.SIGTERM


@pytest.mark.parametrize("leader", ["run", "shell"])
def test_under_nohup_a_hang_up_ends_nothing(lockkit, tty, request, job, alive, is_busy, over, leader):
    if leader == "run":
        terminal = tty(*words(lockkit, job, RUNS, "nohup"))
        wrapper = began(lockkit, job)
    else:
        terminal = request.getfixturevalue("bash")
        wrapper = in_front(lockkit, job, terminal, RUNS, "nohup")

    terminal.hang_up()

    assert is_busy()
    assert alive(int(lockkit.file("pid")))
    os.kill(wrapper, signal.SIGTERM)
    assert over() == 128 + signal.SIGTERM


def test_a_hang_up_while_waiting_leaves_nothing_in_the_queue(lockkit, tty, job):
    lockkit.holding(job)
    terminal = tty(*lockkit.line("run", *job.words, "--", "touch", "ran"))
    terminal.expect("you are 1st")

    terminal.hang_up()

    lockkit.until(lambda: len(lockkit.claims(job.queue)) == 1)
    assert os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1]) in (129, -signal.SIGHUP)
    assert not (lockkit.folder / "ran").exists()


def test_the_death_of_the_shell_ends_the_command(lockkit, bash, job, over):
    """Like any session leader's death, it hangs up the foreground group; the outer ``run`` gets no signal."""
    in_front(lockkit, job, bash, RUNS)

    os.kill(bash.pid, signal.SIGKILL)

    assert over() == 128 + signal.SIGHUP


@pytest.mark.parametrize("how", ["kill-pane", "kill-server"])
def test_what_ends_a_pane_of_tmux_ends_the_command_in_it(lockkit, job, over, how):
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux")

    def tmux(*args):
        line = ["tmux", "-S", str(lockkit.folder / "tmux"), "-f", "/dev/null", *args]
        return subprocess.run(
            line, env=lockkit.env | {"TERM": "xterm"}, cwd=lockkit.folder, check=True, timeout=40
        )

    tmux("new-session", "-d", "-x", "100", "-y", "20", shlex.join(words(lockkit, job, RUNS)))
    try:
        began(lockkit, job)
    except BaseException:
        tmux("kill-server")
        raise

    tmux(how)

    assert over() == 128 + signal.SIGHUP


def test_a_debugger_has_the_terminal(lockkit, tty, job):
    (lockkit.folder / "train.py").write_text("loss = 42\nbreakpoint()\nprint('epoch', loss + 1)\n")
    terminal = tty(*lockkit.line("run", *job.words, "--", sys.executable, "train.py"), PYTHON_BASIC_REPL="1")

    terminal.expect(r"\(Pdb\) ")
    terminal.type("loss\n")
    terminal.expect(r"42\r\n\(Pdb\) ")
    terminal.type("loss = 6\n")
    terminal.expect(r"\(Pdb\) ")
    assert len(lockkit.claims(job.queue)) == 1
    terminal.type("continue\n")

    terminal.expect("epoch 7")
    assert terminal.wait() == 0
    assert lockkit.claims(job.queue) == []


def test_a_run_that_is_killed_takes_its_command_along_and_the_shell_has_the_terminal(
    lockkit, bash, job, alive
):
    """As the kernel does when memory runs out."""
    wrapper = in_front(lockkit, job, bash, RUNS)

    os.kill(wrapper, signal.SIGKILL)

    bash.expect("Killed")
    bash.type("echo code=$?\n")
    bash.expect(r"code=137\r")
    lockkit.until(lambda: not alive(int(lockkit.file("pid"))))
    assert lockkit("run", *job.words, "--no-wait", "--", "true").returncode == 0


def test_what_a_killed_run_leaves_behind_keeps_what_it_held(lockkit, bash, job, alive, is_busy):
    wrapper = in_front(lockkit, job, bash, "setsid sh -c 'echo $$ > pid; exec sleep 60' & wait")
    survivor = int(lockkit.file("pid"))
    try:
        os.kill(wrapper, signal.SIGKILL)
        bash.expect("Killed")

        assert is_busy()
        assert alive(survivor)
    finally:
        os.kill(survivor, signal.SIGKILL)
    assert lockkit("run", *job.words, "--timeout", "30s", "--", "true").returncode == 0


def test_a_command_that_is_killed_frees_what_it_held(lockkit, bash, job, over):
    in_front(lockkit, job, bash, RUNS)

    os.kill(int(lockkit.file("pid")), signal.SIGKILL)

    bash.expect("PROMPT> ")
    bash.type("echo code=$?\n")
    bash.expect(r"code=137\r")
    assert over() == 128 + signal.SIGKILL
