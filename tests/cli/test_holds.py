"""Holds across commands: acquire, release, held."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import sys
import time
from pathlib import Path

import pytest


def test_a_hold_outlives_the_command_that_took_it(lockkit):
    assert lockkit("acquire", "x", "--ttl", "1m").returncode == 0
    time.sleep(0.5)
    assert lockkit("held", "x").returncode == 0
    assert lockkit("run", "x", "--no-wait", "--", "true").returncode == 75
    assert lockkit("acquire", "x", "--ttl", "1m", "--no-wait").returncode == 75
    assert lockkit("release", "x").returncode == 0
    assert lockkit("held", "x").returncode == 1
    assert lockkit("run", "x", "--no-wait", "--", "true").returncode == 0


def test_a_hold_lapses_after_its_ttl_and_releasing_it_then_harms_nobody(lockkit):
    lockkit("acquire", "x", "--ttl", "1s")
    assert lockkit("run", "x", "--timeout", "30s", "--", "true").returncode == 0
    lockkit.holder("x")
    assert lockkit("held", "x").returncode == 1
    done = lockkit("release", "x")
    assert (done.returncode, "gone before" in done.stderr) == (76, True)
    assert len(lockkit.claims("x")) == 1


def test_the_handle_is_for_its_owner_alone(lockkit):
    taken = lockkit.json("acquire", "x", "--ttl", "1m")
    path = Path(taken["handle"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    lockkit("release", "x")
    assert not path.exists()


def test_a_printed_token_releases_from_anywhere(lockkit):
    token = lockkit("acquire", "x", "--ttl", "1m", "--print-token").stdout.strip()
    assert lockkit("release", "x").returncode == 1
    wrong = lockkit("release", "x", "--token-file", "-", input="0" * 32)
    assert (wrong.returncode, len(lockkit.claims("x"))) == (76, 1)
    none = lockkit("release", "x", "--token-file", "-", input="junk\n")
    assert none.returncode == 64
    assert "32 hex digits" in none.stderr
    assert lockkit("release", "x", "--token-file", "-", input=token).returncode == 0
    assert lockkit.claims("x") == []


def test_where_a_hold_was_looked_for_is_said(lockkit):
    taken, asked = (f"sqlite:{lockkit.folder}/{path}" for path in ("x.db", "y.db"))
    none = (
        f"this user has taken no hold of 'x' on this host with lockkit acquire on {asked}, namespace default"
    )
    hint = (
        " (release as the same user, on the same host, on the same store; "
        "or use --token-file, or lockkit evict)"
    )
    other = f" (there is one on {taken}, namespace default; name that store (--url, --namespace))"
    for then in (hint, other):
        done = lockkit("held", "x", "--url", asked)
        assert (done.returncode, done.stdout) == (1, f"not held: {none}{other if then is other else ''}\n")
        done = lockkit("release", "x", "--url", asked)
        assert (done.returncode, done.stderr) == (1, f"lockkit: {none}{then}\n")
        lockkit("acquire", "x", "--ttl", "1m", "--no-wait", "--url", taken)
    assert lockkit("held", "x", "--url", asked, "-q").stdout == ""
    for spelling in (taken, f"sqlite:{lockkit.folder}/./x.db"):
        assert lockkit("held", "x", "--url", spelling).stdout == "held\n"
    assert lockkit("release", "x", "--url", taken).returncode == 0


def test_of_several_holds_one_must_be_named(lockkit):
    first = lockkit.json("acquire", "x", "--ttl", "1m", "--capacity", "2")
    lockkit("acquire", "x", "--ttl", "1m", "--capacity", "2")
    assert lockkit("release", "x").returncode == 64
    assert lockkit("release", "x", "--claim", first["claim_id"]).returncode == 0
    assert lockkit("release", "x").returncode == 0


NO_ANSWER = """
import os, signal, sys
from lockkit.cli import main
from lockkit.errors import OutcomeUnknown
from lockkit.store.spi import Unknown
from lockkit_sqlite.backend import SqliteBackend as Store

def lost(call):
    def asked(*args, **keywords):
        call(*args, **keywords)
        raise Unknown(OutcomeUnknown("no answer"))
    return asked

def deaf(*args, **keywords):
    raise Unknown(OutcomeUnknown("no answer"))

def killed(call):
    def asked(*args, **keywords):
        call(*args, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)
    return asked

"""


def broken(lockkit, how, *args):
    """A command on a store that is made worse by some lines of Python."""
    code = f"{NO_ANSWER}{how}\nmain.main()"
    return lockkit.run([sys.executable, "-c", code, *args])


DEAF = "Store.acquire = lost(Store.acquire); Store.abandon = Store.release = deaf"


@pytest.mark.parametrize("more", [["--timeout", "300ms"], ["--no-wait"]])
def test_a_hold_whose_grant_was_never_heard_of_can_be_released(lockkit, more):
    done = broken(lockkit, DEAF, "acquire", "my job", "--ttl", "1h", *more)
    told, last = done.stderr.splitlines()[-2:]
    (claim,) = lockkit.claims("my job")
    assert told == (
        f"lockkit: 'my job' may still be held (claim {claim['claim_id']}), for at most 60 min; "
        "to end that: lockkit release 'my job'"
    )
    assert (done.returncode, last) == (69, "lockkit: no answer")
    assert lockkit("held", "my job").returncode == 0
    assert lockkit("release", "my job").returncode == 0
    assert lockkit.claims("my job") == []


def test_a_hold_that_may_stand_is_told_in_json_too(lockkit):
    done = broken(lockkit, DEAF, "acquire", "x", "--ttl", "1h", "--no-wait", "--json")
    notice, error = map(json.loads, done.stderr.splitlines()[-2:])
    assert (notice["schema"], notice["name"]) == ("lockkit.notice/1", "x")
    assert "to end that: lockkit release x" in notice["message"]
    assert error["exit_code"] == 69


def test_a_hold_that_may_stand_and_whose_token_was_never_printed_can_be_evicted(lockkit):
    done = broken(lockkit, DEAF, "acquire", "x", "--ttl", "1h", "--no-wait", "--print-token")
    (claim,) = lockkit.claims("x")
    line = f"lockkit evict x --claim {claim['claim_id']} --now --reason"
    assert line in done.stderr
    assert not list(lockkit.folder.glob("state/holds/*"))


def test_a_hold_whose_taker_was_killed_before_it_could_say_so_can_be_released(lockkit):
    done = broken(lockkit, "Store.acquire = killed(Store.acquire)", "acquire", "x", "--ttl", "1h")
    assert done.returncode == -signal.SIGKILL
    assert lockkit("held", "x").returncode == 0
    assert lockkit("release", "x").returncode == 0
    assert lockkit.claims("x") == []


def test_an_acquire_that_got_nothing_keeps_nothing(lockkit):
    lockkit.holder("x")
    assert lockkit("acquire", "x", "--ttl", "1h", "--no-wait").returncode == 75
    assert lockkit("acquire", "x", "--ttl", "1h", "--timeout", "100ms").returncode == 124
    assert not list(lockkit.folder.glob("state/holds/*"))


def test_what_still_waits_is_no_hold(lockkit):
    lockkit.holder("x")
    waiter = lockkit.start("acquire", "x", "--ttl", "1h")
    lockkit.until(lambda: len(lockkit.claims("x")) == 2)
    assert lockkit("held", "x").returncode == 1
    assert lockkit("release", "x").returncode == 1
    assert len(lockkit.claims("x")) == 2
    assert waiter.poll() is None


def test_no_hold_is_taken_that_cannot_be_kept(lockkit):
    (lockkit.folder / "state").mkdir(mode=0o700)
    (lockkit.folder / "state" / "holds").touch()
    assert lockkit("acquire", "x", "--ttl", "1m").returncode == 69
    assert lockkit("acquire", "x", "--ttl", "1m", "--print-token", "--no-wait").returncode == 0


def test_holds_that_lapsed_are_looked_for_at_once_and_told_of_once(lockkit):
    for _ in range(3):
        lockkit("acquire", "x", "--ttl", "100ms", "--timeout", "30s")
    lockkit.until(lambda: not lockkit.claims("x"))
    looks = (
        "asked = Store.inspect\n"
        "Store.inspect = lambda *args: print('looked', file=sys.stderr) or asked(*args)"
    )
    assert broken(lockkit, looks, "held", "x").stderr.count("looked") == 1
    assert lockkit("release", "x").returncode == 76
    assert lockkit("release", "x").returncode == 1
    lockkit("acquire", "x", "--ttl", "100ms")
    lockkit.until(lambda: not lockkit.claims("x"))
    lockkit("acquire", "x", "--ttl", "1m")
    assert lockkit("release", "x").returncode == 0
    assert lockkit("release", "x").returncode == 1


def test_what_is_over_since_long_is_tidied_away(lockkit):
    old, new = (lockkit.json("acquire", name, "--ttl", "1m")["handle"] for name in ("x", "y"))
    handle = json.loads(Path(old).read_text())
    Path(old).write_text(json.dumps(handle | {"until": time.time() - 86_500.0}))
    half = Path(new).with_suffix(".new")
    half.touch()
    os.utime(half, (time.time() - 86_500.0,) * 2)
    lockkit("acquire", "z", "--ttl", "1m")
    assert [each.exists() for each in (Path(old), half, Path(new))] == [False, False, True]


def test_acquire_waits_in_line_and_ctrl_c_leaves_nothing(lockkit):
    lockkit.holder("x")
    waiter = lockkit.start("acquire", "x", "--ttl", "1m")
    lockkit.until(lambda: len(lockkit.claims("x")) == 2)
    waiter.send_signal(signal.SIGINT)
    assert waiter.wait(timeout=40) == 130
    assert len(lockkit.claims("x")) == 1


def test_a_lock_name_may_be_longer_than_a_file_name(lockkit):
    name = "ä/" * 150
    assert lockkit("acquire", name, "--ttl", "1m").returncode == 0
    assert lockkit("held", name).returncode == 0
    assert lockkit("release", name).returncode == 0


@pytest.mark.parametrize("more", [[], ["--print-token"]])
@pytest.mark.parametrize("end", ["Lease.hand_over", "Client.close"])
def test_a_signal_does_not_take_back_what_was_handed_over(lockkit, end, more):
    program = f"""
import os, signal, sys
from lockkit.cli.main import main
from lockkit.sync.client import Client
from lockkit.sync.lease import Lease
real = {end}
def signalled(self):
    done = real(self)
    os.kill(os.getpid(), signal.SIGTERM)
    return done
{end} = signalled
main(sys.argv[1:])
"""
    done = lockkit.run([sys.executable, "-c", program, "acquire", "x", "--ttl", "1h", *more])
    assert done.stdout
    assert len(lockkit.claims("x")) == 1
    token = ["--token-file", "-"] if more else []
    assert lockkit("release", "x", *token, input=done.stdout).returncode == 0
    assert lockkit.claims("x") == []


@pytest.mark.parametrize("to, code", [("> /dev/full", 69), ("| true", 141)])
@pytest.mark.parametrize("more", [[], ["--print-token"]])
def test_a_hold_that_could_not_be_told_of_is_released(lockkit, to, code, more):
    line = shlex.join(lockkit.line("acquire", "x", "--ttl", "1h", *more))
    if to == "| true":
        to = "| { exec <&-; until [ -e done ]; do sleep 0.05; done; }"
    done = lockkit.run(["sh", "-c", f"{{ {line}; echo $? > done; }} {to}"])
    assert (lockkit.folder / "done").read_text() == f"{code}\n", done.stderr
    assert lockkit.claims("x") == []
    assert not list(lockkit.folder.glob("state/holds/*"))


def test_a_hold_that_was_written_by_half_leaves_nothing(lockkit):
    fails = "import os\ndef full(_):\n    raise OSError(28, 'No space left on device')\nos.fsync = full"
    assert broken(lockkit, fails, "acquire", "x", "--ttl", "1h").returncode == 69
    assert not list(lockkit.folder.glob("state/holds/*"))


def test_a_signal_while_a_grant_is_written_leaves_nothing(lockkit):
    kills = """
from lockkit.cli import holds
real = holds.Tokens._forget
def signalled(self, **more):
    if not hasattr(holds, "once"):
        holds.once = True
        os.kill(os.getpid(), signal.SIGTERM)
    return real(self, **more)
holds.Tokens._forget = signalled
"""
    assert broken(lockkit, "import os, signal\n" + kills, "acquire", "x", "--ttl", "1h").returncode == 143
    assert lockkit.claims("x") == []
    assert not list(lockkit.folder.glob("state/holds/*"))


def test_a_file_that_stays_is_told_of_and_changes_nothing_else(lockkit):
    stuck = """
from lockkit.cli.holds import Stored
def forget(self):
    raise PermissionError(13, "Permission denied", str(self.path))
Stored.forget = forget
"""
    path = lockkit.json("acquire", "x", "--ttl", "1h")["handle"]
    for code, last in [(0, "released 'x'"), (76, "lockkit: the hold of 'x' was gone before it was released")]:
        done = broken(lockkit, stuck, "release", "x")
        told, answer = done.stderr.splitlines()
        assert (done.returncode, answer.startswith(last)) == (code, True), done.stderr
        assert path in told
    assert lockkit.claims("x") == []


def test_a_release_by_token_forgets_the_file_too(lockkit):
    path = Path(lockkit.json("acquire", "x", "--ttl", "1h")["handle"])
    token = json.loads(path.read_text())["token"]
    lockkit("acquire", "y", "--ttl", "1h")
    assert lockkit("release", "x", "--token-file", "-", input=token).returncode == 0
    assert not path.exists()
    assert lockkit("held", "y").returncode == 0


def test_a_release_by_token_needs_no_place_for_files(lockkit):
    url = f"sqlite:{lockkit.folder}/x.db"
    done = lockkit("acquire", "x", "--ttl", "1h", "--print-token", "--url", url)
    (lockkit.folder / "state").mkdir(mode=0o700, exist_ok=True)
    (lockkit.folder / "state" / "holds").touch()
    done = lockkit("release", "x", "--token-file", "-", "--url", url, input=done.stdout)
    assert (done.returncode, done.stderr) == (0, "released 'x'\n")


def test_release_by_name_ends_what_stands_and_by_token_that_hold_only(lockkit):
    token = lockkit("acquire", "x", "--ttl", "100ms", "--print-token").stdout
    lockkit.until(lambda: not lockkit.claims("x"))
    lockkit("acquire", "x", "--ttl", "1h")
    assert lockkit("release", "x", "--token-file", "-", input=token).returncode == 76
    assert len(lockkit.claims("x")) == 1
    assert lockkit("release", "x").returncode == 0
    help_ = " ".join(lockkit("release", "--help").stdout.split())
    assert "current hold of this user on this host, whichever script took it" in help_
