"""``lockkit run`` on a terminal: the command is the foreground job, and the shell keeps its job control."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import sys
import time

import pytest


def line(lockkit, *args: object) -> str:
    return shlex.join(lockkit.line(*args))


def test_the_command_is_the_foreground_group(lockkit, tty, job):
    look = "import os; print('front', os.tcgetpgrp(0) == os.getpgrp() == os.getpid())"
    terminal = tty(*lockkit.line("run", *job.words, "--", sys.executable, "-c", look))
    terminal.expect("front True")
    assert terminal.wait() == 0


def test_ctrl_c_is_for_the_command_alone(lockkit, tty):
    terminal = tty(*lockkit.line("run", "x", "--", sys.executable, "-i"), PYTHON_BASIC_REPL="1")
    terminal.expect(">>> ")
    lockkit.until(terminal.idle)
    terminal.type("\x03")
    terminal.expect("KeyboardInterrupt")
    terminal.type("print(6 * 7)\n")
    terminal.expect(r"42\r")
    terminal.type("exit(3)\n")
    assert terminal.wait() == 3


def test_ctrl_c_ends_a_command_that_does_not_handle_it(lockkit, tty, job):
    terminal = tty(*lockkit.line("run", *job.words, "--", "sh", "-c", "echo ready; exec sleep 60"))
    terminal.expect("ready")
    terminal.type("\x03")
    assert terminal.wait() == 130, terminal.text
    assert lockkit.claims(job.queue) == []


def test_ctrl_c_while_waiting_leaves_no_claim(lockkit, tty, job):
    lockkit.holding(job)
    terminal = tty(*lockkit.line("run", *job.words, "--", "true"))
    terminal.expect("you are 1st; .*held by")
    terminal.type("\x03")
    assert terminal.wait() == 130, terminal.text
    assert "lockkit: interrupted" in terminal.text
    assert len(lockkit.claims(job.queue)) == 1


def test_ctrl_z_stops_the_job_and_keeps_the_lock(lockkit, bash, job):
    bash.type(
        line(lockkit, "run", *job.words, "--ttl", "1s", "--", "sh", "-c", "echo ready; exec sleep 60") + "\n"
    )
    bash.expect(r"[\r\n]ready\r")
    command = bash.front()
    bash.type("\x1a")
    bash.expect("Stopped")
    bash.expect("PROMPT> ")
    time.sleep(1.5)
    assert lockkit("run", *job.words, "--no-wait", "--", "true").returncode == 75
    bash.type("fg\n")
    bash.expect("sleep 60")
    lockkit.until(lambda: bash.front() == command)
    bash.type("\x03")
    bash.expect("PROMPT> ")
    bash.type("echo code=$?\n")
    bash.expect(r"code=130\r")
    assert lockkit.claims(job.queue) == []


def test_a_stopped_job_can_go_on_in_the_background(lockkit, bash, job):
    bash.type(
        line(
            lockkit,
            "run",
            *job.words,
            "--",
            "sh",
            "-c",
            "echo ready; while [ ! -e go ]; do :; done; echo done > done",
        )
        + "\n"
    )
    bash.expect(r"[\r\n]ready\r")
    bash.type("\x1a")
    bash.expect("Stopped")
    bash.expect("PROMPT> ")
    bash.type("bg\n")
    bash.expect("PROMPT> ")
    (lockkit.folder / "go").touch()
    lockkit.until((lockkit.folder / "done").exists)
    lockkit.until(lambda: lockkit.claims(job.queue) == [])


def test_a_job_that_is_stopped_by_the_terminal_is_ended_at_its_deadline_and_fg_says_so(
    lockkit, bash, job, alive
):
    options = ("--max-hold", "12s", "--kill-after", "4s")
    bash.type(
        line(lockkit, "run", *job.words, *options, "--", "sh", "-c", "echo ready=$$; exec sleep 60") + "\n"
    )
    command = int(bash.expect(r"[\r\n]ready=\d+\r").strip().partition("=")[2])
    bash.type("\x1a")
    bash.expect("Stopped")
    bash.expect("PROMPT> ")
    lockkit.until(lambda: not alive(command))
    bash.type("fg\n")
    bash.expect(r"the watchdog ended the command at \S+, because this lockkit run was stopped")
    bash.expect("PROMPT> ")
    bash.type("echo code=$?\n")
    bash.expect(r"code=76\r")


def test_a_background_job_that_reads_waits_for_the_foreground(lockkit, bash, job):
    bash.type(line(lockkit, "run", *job.words, "--", "sh", "-c", "read answer; echo got=$answer") + " &\n")
    bash.expect("PROMPT> ")
    lockkit.until(lambda: any(one["process"] == "stopped" for one in lockkit.claims(job.queue)))
    bash.type("\n")
    bash.expect("Stopped")
    bash.type("fg\n")
    bash.expect("read answer")
    bash.type("yes\n")
    bash.expect("got=yes")


def test_the_terminal_is_given_back(lockkit, bash, job):
    bash.type(line(lockkit, "run", *job.words, "--", "true") + "; read answer; echo got=$answer\n")
    bash.type("yes\n")
    bash.expect("got=yes")
    bash.type(
        line(lockkit, "run", *job.words, "--", "sh", "-c", "kill -9 $$")
        + "; echo code=$?; read answer; echo got=$answer\n"
    )
    bash.expect(r"code=137\r")
    bash.type("again\n")
    bash.expect("got=again")


@pytest.mark.parametrize("command", ["true", "kill -9 $$"], ids=["ends", "killed"])
def test_a_script_without_job_control_reads_after_a_run(lockkit, tty, job, command):
    """Such a shell never takes the terminal itself, as an interactive one does after each job."""
    terminal = tty(
        "sh",
        "-c",
        line(lockkit, "run", *job.words, "--", "sh", "-c", command) + "; read answer; echo got=$answer",
    )

    terminal.type("yes\n")

    terminal.expect("got=yes")


def test_a_pipeline_keeps_the_terminal_for_all_of_it(lockkit, bash):
    reader = "import os; print('front', os.tcgetpgrp(2) == os.getpgrp())"
    bash.type(
        f"{line(lockkit, 'run', 'x', '--', 'echo', 'hi')} | {shlex.join([sys.executable, '-c', reader])}\n"
    )
    bash.expect(r"front True\r")
    bash.type(line(lockkit, "run", "x", "--", "sh", "-c", "echo ready >&2; exec sleep 60") + " | cat\n")
    bash.expect(r"[\r\n]ready\r")
    bash.type("\x03")
    bash.expect("PROMPT> ")
    lockkit.until(lambda: lockkit.claims("x") == [])


def test_ctrl_c_ends_a_loop_around_it(lockkit, bash):
    one = line(lockkit, "run", "x", "--", "sh", "-c", "echo round; exec sleep 60")
    bash.type(f"for i in 1 2 3; do {one}; done; echo after=$?\n")
    bash.expect(r"[\r\n]round\r")
    bash.type("\x03")
    bash.expect("PROMPT> ")
    bash.type("echo next\n")
    assert "round" not in bash.expect(r"next\r")
    assert lockkit.claims("x") == []


def test_ctrl_c_ends_a_loop_around_a_wait(lockkit, bash):
    lockkit.holder("x")
    bash.type(f"for i in 1 2 3; do {line(lockkit, 'run', 'x', '--', 'true')}; done; echo after=$?\n")
    bash.expect("you are 1st; held by")
    time.sleep(0.2)
    bash.type("\x03")
    bash.expect("PROMPT> ")
    bash.type("echo code=$?\n")
    bash.expect(r"code=130\r")
    assert len(lockkit.claims("x")) == 1


def test_ctrl_c_ends_a_script_around_it(lockkit, bash):
    script = lockkit.folder / "script"
    script.write_text(
        f"{line(lockkit, 'run', 'x', '--', 'sh', '-c', 'echo ready; exec sleep 60')}\necho went on\n"
    )
    bash.type(f"bash {script}; echo code=$?\n")
    bash.expect(r"[\r\n]ready\r")
    bash.type("\x03")
    bash.expect("PROMPT> ")
    bash.type("echo next\n")
    assert "went on" not in bash.expect(r"(?s).*next\r")
    assert lockkit.claims("x") == []


def test_sigint_sent_to_the_wrapper_is_not_taken_for_ctrl_c(lockkit, bash):
    bash.type(f"bash -c {shlex.quote(line(lockkit, 'run', 'x', '--', 'sleep', '60') + '; echo went on')}\n")
    lockkit.until(lambda: lockkit.claims("x"))
    (claim,) = lockkit.claims("x")
    time.sleep(0.3)
    os.kill(claim["owner"]["pid"], signal.SIGINT)
    bash.expect("went on")


def test_a_live_line_follows_the_place_in_line(lockkit, tty):
    holder = lockkit.holder("x")
    first = lockkit.start("run", "x", "--", "sleep", "60")
    lockkit.until(lambda: len(lockkit.claims("x")) == 2)
    terminal = tty(*lockkit.line("run", "x", "--", "echo", "mine"))
    terminal.expect("you are 2nd")
    holder.send_signal(signal.SIGTERM)
    terminal.expect("you are 1st")
    first.send_signal(signal.SIGTERM)
    terminal.expect("mine")
    assert terminal.wait() == 0


def test_a_live_line_stays_in_its_row(lockkit, tty):
    lockkit.holder("nightly-report-europe")
    run = line(lockkit, "run", "nightly-report-europe", "--timeout", "4s", "--", "true")
    terminal = tty("sh", "-c", f"stty rows 24 columns 60; exec {run}")
    assert terminal.wait() == 124
    _, *rows = terminal.text.split("\r\x1b[K")
    whole, first = rows[0].split("\r\n")
    assert re.fullmatch(
        r"waiting for 'nightly-report-europe': you are 1st; "
        r"held by .* \(sleep\), (?:[\d.]+ s|just now); for at most 4 s",
        whole,
    )
    assert len({first, *rows[1:-1]}) == 1
    assert (len(first), first[-3:]) == (59, "...")


def test_no_color_means_no_escape_sequences(lockkit, tty):
    lockkit.holder("x")
    terminal = tty(*lockkit.line("run", "x", "--timeout", "500ms", "--", "true"), NO_COLOR="1")
    assert terminal.wait() == 124
    assert "\x1b" not in terminal.text
    assert "you are 1st" in terminal.text
    for command in (["status"], ["gpu", "ls", "--gpu-sim", "1"]):
        terminal = tty(*lockkit.line(*command), NO_COLOR="1")
        assert terminal.wait() == 0
        assert "\x1b" not in terminal.text


@pytest.fixture
def completing(tty, lockkit):
    """An interactive bash with lockkit's completion, where ``gpu:0`` is held."""
    if not shutil.which("bash"):
        pytest.skip("no bash")
    lockkit.holder("gpu:0")
    folder = lockkit.folder / "bin"
    folder.mkdir()
    script = folder / "lockkit"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(lockkit.patient_line())} "$@"\n')
    script.chmod(0o755)
    (lockkit.folder / "completion").write_text(lockkit("completion", "bash").stdout)
    shell = tty("bash", "--norc", "--noprofile", "-i", PATH=f"{folder}:{os.environ['PATH']}", COLUMNS="200")
    shell.expect("PROMPT> ")
    shell.type("bind 'set enable-bracketed-paste off'; set +H; . ./completion; echo rea''dy\n")
    shell.expect("ready\r\n.*PROMPT> ")
    return shell


@pytest.mark.parametrize(
    "typed, finished",
    [
        ("explain gp", "explain gpu:0 "),
        ("explain gpu:", "explain gpu:0 "),
        ('explain "gpu:', 'explain "gpu:0" '),
        ("explain --url sqlite: gp", "explain --url sqlite: gpu:0 "),
        ("explain --url=sqlite: gpu:", "explain --url=sqlite: gpu:0 "),
        ("bench hand", "bench hand-off "),
        ("explain --names", "explain --namespace "),
    ],
)
def test_bash_completes_words_with_colons(completing, typed, finished):
    completing.complete(f"lockkit {typed}", f"lockkit {finished}")


@pytest.mark.parametrize(
    "typed, finished",
    [
        ("explain my", r"explain my\ job:\$1\ b "),
        (r"explain my\ j", r"explain my\ job:\$1\ b "),
        (r"explain my\ job:", r"explain my\ job:\$1\ b "),
        ("explain 'my j", "explain 'my job:$1 b' "),
        ("explain x,y:", r"explain x,y:\ z "),
    ],
)
def test_bash_escapes_what_a_completed_name_has_in_it(lockkit, completing, typed, finished):
    lockkit.holder("my job:$1 b")
    lockkit.holder("x,y: z")
    completing.complete(f"lockkit {typed}", f"lockkit {finished}")


@pytest.mark.parametrize("plain", ["", "1"])
def test_ctrl_c_is_told_at_the_start_of_a_line(lockkit, tty, plain):
    lockkit.holder("x")
    terminal = tty(*lockkit.line("wait", "x"), NO_COLOR=plain)
    terminal.expect("held by")
    terminal.type("\x03")
    assert terminal.wait() == 130
    start = r"\r\n" if plain else r"\r\x1b\[K"
    assert re.search(start + r"lockkit: interrupted\r\n$", terminal.text)


@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)]
)
def test_a_watch_shows_the_cursor_again_whatever_ends_it(lockkit, tty, number, code):
    terminal = tty(*lockkit.line("status", "--watch"))
    terminal.expect(r"namespace default, [\d:]+")
    os.kill(terminal.pid, number)
    assert terminal.wait() == code
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.find("\x1b[?25l")


def test_doctor_says_on_a_terminal_what_it_waits_for(lockkit, tty):
    with socket.create_server(("127.0.0.1", 0)) as mute:  # which accepts and never answers
        url = f"etcd://127.0.0.1:{mute.getsockname()[1]}"
        terminal = tty(*lockkit.line("doctor", "--url", url))
        terminal.expect(rf"asking the store, {url} \.\.\.")
        assert terminal.wait() == 2
    rows = [row.rpartition("\x1b[K")[2] for row in terminal.text.replace("\x1b[0m", "").split("\r\n")]
    assert all(re.match(r"(\x1b\[\d+m)?(ok|error|warning): |$", row) for row in rows), rows


REACH = "this lock is only between .*'s processes on this host; for all users: lockkit docs all-users"


def test_a_run_on_the_default_store_says_once_whose_processes_it_keeps_apart(lockkit, tty):
    terminal = tty(*lockkit.line("run", "x", "--", *lockkit.line("run", "y", "--", "echo", "done")))

    assert terminal.wait() == 0
    assert re.search(rf"^lockkit: {REACH}\r\n.*done", terminal.text, re.DOTALL)
    assert len(re.findall(REACH, terminal.text)) == 1, "a run inside of another does not say it again"


@pytest.mark.parametrize(
    "options, env",
    [
        (["--quiet"], {}),
        (["--json"], {}),
        (["--url", "sqlite:"], {}),
        ([], {"LOCKKIT_URL": "sqlite:"}),
        ([], {"LOCKKIT_SCOPE": "user"}),
    ],
    ids=["quiet", "json", "url", "LOCKKIT_URL", "scope"],
)
def test_who_has_chosen_a_store_or_wants_silence_is_told_nothing(lockkit, tty, options, env):
    terminal = tty(*lockkit.line("run", *options, "x", "--", "echo", "done"), **env)

    assert terminal.wait() == 0
    assert terminal.text == "done\r\n"


def test_without_a_terminal_nothing_is_said(lockkit):
    assert lockkit("run", "x", "--", "true").stderr == ""
