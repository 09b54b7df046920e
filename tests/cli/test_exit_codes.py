"""Every exit code of the table, each met the way users meet it; and the last line of stderr says why."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess

import pytest

DIES = "kill -{0} $$"


@pytest.mark.parametrize(
    "line, code, reason",
    [
        (["run", "x", "--", "true"], 0, None),
        (["run", "x", "--", "sh", "-c", "exit 7"], 7, None),
        (["run", "x", "--", "sh", "-c", DIES.format("TERM")], 143, None),
        (["run", "x", "--", "sh", "-c", DIES.format("KILL")], 137, None),
        (["run", "x", "true"], 64, "did you mean: lockkit run x -- true"),
        (["run", "x", "--ttl", "5s", "rsync", "-a", "/a"], 64, "lockkit run x --ttl 5s -- rsync -a /a"),
        (["run", "a", "b", "--", "nobody-has-this"], 127, "command not found: nobody-has-this"),
        (["run", "x", "--"], 64, "no command"),
        (["run", "--", "true"], 64, "NAME"),
        (["run", "--", "git", "--", "true"], 64, "NAME"),
        (["run", "x", "--nonsense", "--", "true"], 64, "--nonsense"),
        (["run", "x", "--capacity", "0", "--", "true"], 64, "must be a whole number from 1 to 1000000"),
        (["run", "x", "--capacity", "1000001", "--", "true"], 64, "from 1 to 1000000"),
        (["run", "x", "-E", "300", "--", "true"], 64, "must be a whole number from 0 to 255"),
        (["resize", "x", "0"], 64, "must be a whole number from 1 to 1000000"),
        (["resize", "x", "x"], 64, "must be a whole number from 1 to 1000000"),
        (["run", "x", "--timeout", "soon", "--", "true"], 64, "10m"),
        (["run", "x", "--ttl", "-3", "--", "true"], 64, "ttl"),
        (["run", "x", "--shared", "--capacity", "2", "--", "true"], 64, "cannot be used together"),
        (["run", "x", "--permits", "2", "--", "true"], 64, "--capacity"),
        (["acquire", "x", "--ttl", "1m", "--permits", "2"], 64, "--capacity"),
        (["acquire", "x", "--ttl", "1m", "--permits", "2", "--shared"], 64, "--capacity"),
        (["acquire", "x", "--ttl", "1m", "--no-wait", "--timeout", "3"], 64, "cannot be used together"),
        (["run", "x", "--no-wait", "--timeout", "3", "--", "true"], 64, "cannot be used together"),
        (["run", "bad\nname", "--", "true"], 64, "control characters"),
        (["run", "x", "--capacity", "2", "--permits", "3", "--", "true"], 78, "never"),
        (["run", "x", "--kill-after", "50s", "--", "true"], 78, "--kill-after"),
        (["run", "x", "--namespace", "a b", "--", "true"], 78, "namespace"),
        (["run", "x", "--url", "nosuch://", "--", "true"], 78, "nosuch"),
        (["run", "x", "--url", "memory:", "--", "true"], 78, "--url sqlite:"),
        (["acquire", "x", "--ttl", "1m", "--url", "memory:"], 78, "--url sqlite:"),
        (["run", "x", "--profile", "nosuch", "--", "true"], 78, "nosuch"),
        (["run", "x", "--url", "sqlite:/proc/nowhere/x.db", "--", "true"], 69, "/proc/nowhere"),
        (["run", "x", "--", "no-such-command"], 127, "not found: no-such-command"),
        (["run", "x", "--", "/etc"], 126, "folder"),
        (["run", "x", "--", "/etc/passwd"], 126, "permission denied"),
        (["evict", "x", "--claim", "0123456789ab", "--reason", " "], 64, "must not be empty"),
        (["--url", "sqlite:", "run", "x", "--", "true"], 64, "lockkit run --url sqlite: x -- true"),
        (["staus"], 64, "did you mean: lockkit status"),
        (["config", "frobnicate"], 64, "check"),
        (["evict", "x", "--claim", "0123456789ab", "--reason", "r"], 1, "no claim"),
        (["release", "x"], 1, "no hold"),
        (["held", "x"], 1, None),
        (["failures", "show", "abc"], 1, "no failure"),
    ],
)
def test_a_command_line_ends_with_its_exit_code(lockkit, line, code, reason):
    done = lockkit(*line)
    assert done.returncode == code, done.stderr
    if reason is None:
        assert done.stderr == ""
    else:
        last = done.stderr.splitlines()[-1]
        assert last.startswith("lockkit: ")
        assert reason in done.stderr


def test_a_script_without_an_interpreter_line_is_explained(lockkit, tmp_path):
    script = tmp_path / "job"
    script.write_text("echo hi\n")
    script.chmod(0o755)
    done = lockkit("run", "x", "--", script)
    assert (done.returncode, "#!/bin/sh" in done.stderr) == (126, True)


def test_a_script_whose_interpreter_is_missing_is_not_found(lockkit, tmp_path):
    script = tmp_path / "job"
    script.write_text("#!/no/such/shell\n")
    script.chmod(0o755)
    done = lockkit("run", "x", "--", script)
    assert (done.returncode, "interpreter" in done.stderr) == (127, True)


@pytest.mark.parametrize(
    "options, code",
    [
        (["--no-wait"], 75),
        (["--timeout", "0"], 75),
        (["--timeout", "300ms"], 124),
        (["--no-wait", "-E", "0"], 0),
        (["--timeout", "300ms", "-E", "9"], 9),
    ],
)
def test_a_busy_lock_is_told_by_the_exit_code(lockkit, options, code):
    lockkit.holder("x")
    done = lockkit("run", "x", *options, "--", "true")
    assert done.returncode == code
    last = done.stderr.splitlines()[-1]
    assert last.startswith("lockkit: ")
    assert "(sleep)" in last
    assert [claim["state"] for claim in lockkit.claims("x")] == ["HELD"]


def test_minus_e_leaves_other_codes_alone(lockkit):
    assert lockkit("run", "x", "-E", "3", "--", "sh", "-c", "exit 5").returncode == 5
    assert lockkit("run", "x", "-E", "3", "--", "no-such-command").returncode == 127


def test_another_capacity_can_never_be_satisfied(lockkit):
    lockkit.holder("x")
    done = lockkit("run", "x", "--capacity", "2", "--", "true")
    assert done.returncode == 78, done.stderr


@pytest.mark.parametrize(
    "held, asked, hint",
    [
        (["--shared"], [], "use --exclusive to be alone, or --shared"),
        (["--shared"], ["--capacity", "2"], "use --exclusive to be alone, or --shared"),
        (["--capacity", "3"], [], "use --capacity 3 as the others do)"),
        (["--capacity", "3"], ["--capacity", "2"], " x 2)"),
        ([], ["--shared"], "use none of --capacity, --shared"),
    ],
)
def test_a_name_used_otherwise_is_told_in_the_words_of_the_command_line(lockkit, held, asked, hint):
    lockkit.holder("x", "sleep", *held)
    for line in (["run", "x", *asked, "--no-wait", "--", "true"], ["acquire", "x", "--ttl", "1m", *asked]):
        done = lockkit(*line)
        assert (done.returncode, hint in done.stderr) == (78, True), done.stderr
        assert "1000000" not in done.stderr


@pytest.mark.parametrize(
    "url, reason, hint",
    [
        ("sqlite:///tmp/x?foo=1", "unknown option 'foo'", "allowed: synchronous"),
        ("redis://h?foo=1", "no such option: foo", "allowed options: "),
        ("etcd://h?foo=1", "no such option: foo", "allowed options: "),
        ("zookeeper://h?foo=1", "no such option: foo", "allowed options: "),
        ("zookeeper://h?tick=3&max_ttl=9", "at least 24 s", "tickTime"),
    ],
)
def test_an_option_that_a_url_cannot_have_is_told_in_one_line_the_reason_first(lockkit, url, reason, hint):
    done = lockkit("status", "--url", url)
    if "pip install" in done.stderr:
        pytest.skip("its client library is not installed")
    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert line.startswith("lockkit: ")
    assert 0 < line.index(reason) < line.index(hint)


def test_a_ttl_that_the_store_does_not_have_decides_only_with_strict_whether_a_command_runs(lockkit):
    fitted = lockkit("run", "x", "--ttl", "10ms", "--", "true")
    assert fitted.returncode == 0
    (line,) = fitted.stderr.splitlines()
    assert line.startswith("warning: a ttl of 0.01 s was asked for")
    assert "grants 0.1 s" in line
    lockkit.env["LOCKKIT_STRICT"] = "1"
    refused = lockkit("run", "x", "--ttl", "10ms", "--", "touch", "ran")
    assert refused.returncode == 78
    assert "strict refuses a ttl of 0.01 s" in refused.stderr
    assert not (lockkit.folder / "ran").exists()
    assert lockkit("run", "x", "--", "true").returncode == 0


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_wait_and_takes_the_claim_with_it(lockkit, number, code):
    lockkit.holder("x")
    waiter = lockkit.start("run", "x", "--", "true")
    lockkit.until(lambda: len(lockkit.claims("x")) == 2)
    waiter.send_signal(number)
    _, err = waiter.communicate(timeout=40)
    assert waiter.returncode == code
    assert err.splitlines()[-1].startswith("lockkit: ")
    assert len(lockkit.claims("x")) == 1


SLOW = """
import pathlib, time
mark = pathlib.Path("importing")
if not mark.exists():
    mark.touch()
    time.sleep(60)
"""
DEAF = f"try:\n    exec({SLOW!r})\nexcept BaseException:\n    pass\n"
HOOK = """
from lockkit.hooks import hookimpl
@hookimpl
def lockkit_event(event): pass
"""


@pytest.mark.parametrize("plugin", [SLOW, DEAF], ids=["slow", "deaf"])
@pytest.mark.parametrize(
    "line", [["run", "x", "--", "touch", "ran"], ["acquire", "x", "--ttl", "1m"]], ids=["run", "acquire"]
)
@pytest.mark.parametrize("busy", [False, True], ids=["free", "busy"])
def test_a_signal_during_a_plugins_import_ends_the_command_before_it_begins(lockkit, plugin, line, busy):
    if busy:
        lockkit.holder("x")
    held = lockkit.claims("x")
    lockkit.install("plug", plugin + HOOK)
    process = lockkit.start(*line)
    lockkit.until((lockkit.folder / "importing").exists)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=40)
    assert (process.returncode, err) == (143, "lockkit: SIGTERM while waiting for 'x'\n")
    assert not (lockkit.folder / "ran").exists()
    assert len(lockkit.claims("x")) == len(held)


def test_errors_are_json_where_json_was_asked_for(lockkit):
    lockkit.holder("x")
    done = lockkit("run", "x", "--no-wait", "--json", "--", "true")
    document = json.loads(done.stderr.splitlines()[-1])
    assert document["schema"] == "lockkit.error/1"
    assert (document["error"], document["name"], document["exit_code"]) == ("busy", "x", 75)
    assert document["holder"]["owner"]["program"] == "sleep"
    usage = json.loads(lockkit("evict", "x", "--json").stderr)
    assert usage["exit_code"] == 64


LATE = """
from lockkit.lib.clock import SystemClock
from lockkit.hooks import hookimpl
from lockkit.store.spi import BackendSpec
from lockkit_sqlite import CAPABILITIES
from lockkit_sqlite.backend import open_store

def open_late(url, options):
    store, now = open_store("sqlite:", options), SystemClock.now
    SystemClock.now = staticmethod(lambda: now() + 59.0)
    return store

@hookimpl
def lockkit_backends():
    about = "takes 59 s to open, as its clients count them"
    return [BackendSpec("late", ("late",), open_late, about, CAPABILITIES)]
"""


@pytest.mark.parametrize(
    "line",
    [["run", "x", "-- true"], ["run", "a", "x", "-- true"], ["acquire", "x", "--ttl 1m"]],
    ids=["run", "run-several", "acquire"],
)
def test_a_timeout_is_total(lockkit, line):
    """Opening counts too: of the 60 s, one is left to wait. A run of 60 s would be killed after 20 s."""
    lockkit.holder("x", "sleep", "--ttl", "10m")
    lockkit.install("late", LATE)
    *words, last = line
    done = lockkit(*words, "--url", "late:", "--timeout", "60s", *last.split())
    assert done.returncode == 124, done.stderr
    assert "'x'" in done.stderr.splitlines()[-1]


# -- streams that cannot be written


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_closed_streams_change_nothing_for_the_command(lockkit, closed):
    code = f"{shlex.join(lockkit.line('run', 'x', '--', 'sh', '-c', 'echo out; touch ran; exit 7'))} {closed}"
    done = subprocess.run(
        ["sh", "-c", code], env=lockkit.env, cwd=lockkit.folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert (lockkit.folder / "ran").exists()


def test_a_command_never_writes_into_a_file_of_ours(lockkit):
    look = shlex.join(lockkit.line("run", "x", "--", "sh", "-c", "readlink /proc/$$/fd/2 > where"))
    subprocess.run(["sh", "-c", f"{look} >&- 2>&-"], env=lockkit.env, cwd=lockkit.folder, check=True)
    assert lockkit.file("where") == "/dev/null"


@pytest.mark.parametrize("line", [["status"], ["status", "--json"], ["config", "show"], ["--help"]])
def test_output_that_cannot_be_written_is_one_clean_line(lockkit, line):
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join(lockkit.line(*line))} > /dev/full"],
        env=lockkit.env,
        cwd=lockkit.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 69
    assert done.stderr.splitlines()[-1].endswith("No space left on device") or "--json" in line
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "line, env",
    [
        (["status"], {"PYTHONIOENCODING": "ascii"}),
        (["explain", "büro"], {"PYTHONIOENCODING": "ascii"}),
        (["release", "büro"], {"PYTHONIOENCODING": "ascii"}),
        (["status"], {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}),
    ],
)
def test_what_an_encoding_lacks_is_shown_escaped(lockkit, line, env):
    lockkit("acquire", "büro", "--ttl", "5m")
    done = lockkit(*line, env=env)
    assert (done.returncode, r"b\xfcro" in done.stdout + done.stderr) == (0, True), done.stderr


def test_a_table_may_be_shown_to_nobody(lockkit):
    closed = shlex.join(lockkit.line("status")) + " >&-"
    done = subprocess.run(
        ["sh", "-c", closed], env=lockkit.env, cwd=lockkit.folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    piped = shlex.join(lockkit.line("config", "show"))
    done = subprocess.run(
        ["bash", "-c", f"{piped} | exec true; exit ${{PIPESTATUS[0]}}"],
        env=lockkit.env,
        cwd=lockkit.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode in (0, 141), done.stderr) == (True, "")
