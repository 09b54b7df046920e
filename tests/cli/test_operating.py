"""Looking and intervening: status, explain, wait, evict, resize, holds, failures, doctor, config, plugins."""

from __future__ import annotations

import io
import json
import re
import shlex
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from lockkit.cli.base import Session
from lockkit.cli.commands.explain import sentences
from lockkit.cli.commands.status import _free
from lockkit.cli.lock_table import table_of
from lockkit.cli.suggesting import as_called
from lockkit.facts import ClaimInfo, LockInfo, Owner
from lockkit.observe import journal
from lockkit.views.making import claim as as_json
from lockkit.views.making import lock as as_lock


def test_status_is_a_table_that_a_pipe_does_not_cut(lockkit):
    name = "a-long-name/" * 8
    lockkit.holder(name)
    out = lockkit("status", env={"COLUMNS": "80"}).stdout
    assert out.startswith("store: sqlite:")
    assert name in out
    assert "\x1b" not in out


def test_status_shows_the_claim_and_the_file(lockkit):
    lockkit.holder("x")
    (claim,) = lockkit.claims("x")
    place = f"store: sqlite:{lockkit.folder}/state/lockkit.db (from default)"
    out = lockkit("status").stdout
    assert claim["claim_id"] in out
    for text in (out, lockkit("explain", "x").stdout, lockkit("doctor").stdout):
        assert place in text


@pytest.mark.parametrize(
    "width, state", [(40, "held 1/3"), (80, "held 1/3"), (110, "held 1/3"), (120, "held (1 of 3)")]
)
def test_the_table_fits_its_width_and_keeps_what_one_acts_on(width, state):
    who = Owner(user="ann", host="box", pid=4711, program="sleep")
    claim = ClaimInfo(
        "backup", "3f2a9c01b7de", "HELD", who, 7, 0, capacity=3, kind="semaphore", since=time.time()
    )
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table_of([LockInfo("backup", (claim,))], width))
    out = console.export_text()
    assert max(map(len, out.splitlines())) <= width
    for word in ("backup", state, "3f2a9c01b7de", "ann@box pid 4711 (sleep)"):
        assert word in out
    assert ("deadline" in out) == (width == 120)


def test_status_of_one_semaphore_says_how_many_permits_are_free():
    who = Owner(user="ann", host="box", pid=4711, program="sleep")
    held = ClaimInfo("x", "3f2a9c01b7de", "HELD", who, 7, 0, capacity=5, weight=2, kind="semaphore")
    waits = held._replace(claim_id="000000000000", state="WAITING", fence=None, weight=4)
    mutex = held._replace(capacity=1, weight=1, kind="mutex")

    assert _free(LockInfo("x", (held,))) == "3 of 5 permits are free"
    assert _free(LockInfo("x", (held, waits))).startswith(
        "0 of 5 permits are free; a new claim would come after"
    )
    assert _free(LockInfo("x", (mutex,))) == _free(LockInfo("x")) == ""
    assert LockInfo("x", (mutex,)).available == 0
    assert as_lock(LockInfo("x", (held,))).available == 3


def test_status_of_nothing_says_so(lockkit):
    assert "no lock is held" in lockkit("status").stdout


def test_explain_says_who_since_when_and_how_to_end_it(lockkit):
    lockkit.holder("my job")
    lockkit.start("run", "my job", "--", "true")
    lockkit.until(lambda: len(lockkit.claims("my job")) == 2)
    (held, _) = lockkit.claims("my job")
    out = lockkit("explain", "my job").stdout
    assert re.search(
        r"'my job' is held by \S+@\S+ pid \d+ \(sleep\) since (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d", out
    )
    assert "last renewed at" in out
    assert "Its holder is alive" in out
    assert "1st in the queue:" in out
    assert f"lockkit evict 'my job' --claim {held['claim_id']} --reason" in out


def test_what_the_store_does_not_tell_is_not_made_up():
    who = Owner(user="ann", host="box", pid=4711, program="sleep")
    claim = ClaimInfo("x", "3f2a9c01b7de", "HELD", who, 7, 0, ttl=30.0, since=time.time())
    told = " ".join(sentences(LockInfo("x", (claim,)), time.time()))
    assert "When it was last renewed is unknown" in told
    assert "lapses by itself some 30 s after its process has died" in told
    evicted = " ".join(sentences(LockInfo("x", (claim._replace(evicted=True),)), time.time()))
    assert "when its holder has stopped, or its ttl of 30 s is over" in evicted
    document = as_json(claim)
    assert (document.renewed, document.renewed_seconds, document.deadline) == (None, None, None)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table_of([LockInfo("x", (claim,))], 120))
    assert "30 s after its process" in console.export_text()


@pytest.mark.parametrize("ago, overdue", [(3.0, False), (7.0, False), (8.0, True), (14.0, True)])
def test_explain_says_that_a_renewal_is_overdue(ago, overdue):
    who, now = Owner(user="ann", host="box", pid=4711, program="sleep"), time.time()
    claim = ClaimInfo(
        "x", "3f2a9c01b7de", "HELD", who, 7, 0, ttl=15.0, renewed=now - ago, deadline=now + 15.0 - ago
    )
    told = " ".join(sentences(LockInfo("x", (claim,)), now))
    assert (
        f"ago; a holder renews every 5 s, a third of its ttl.{' That is overdue:' if overdue else ' '}"
        in told
    )
    assert ("overdue" in told) is overdue
    evicted = " ".join(sentences(LockInfo("x", (claim._replace(evicted=True),)), now))
    assert "overdue" not in evicted


def test_explain_gives_the_time_at_which_a_hold_lapses(lockkit):
    lockkit("acquire", "x", "--ttl", "1h")
    out = lockkit("explain", "x").stdout
    assert re.search(r"lapses by itself at (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d", out)


def test_explain_says_that_a_hold_of_acquire_has_no_process_and_how_to_end_it(lockkit):
    lockkit("acquire", "my job", "--ttl", "1h", "--namespace", "ci")
    rows = lockkit("explain", "my job", "--namespace", "ci").stdout.splitlines()
    assert rows[2] == "It was taken by lockkit acquire: no process is attached to it, and nothing renews it."
    assert rows[3].startswith("It lapses by itself at ")
    assert re.fullmatch(r"To end it, as \S+ on \S+: lockkit release --namespace ci 'my job'", rows[4])
    assert rows[5].startswith("Only if that cannot be done, to force it out: lockkit evict --namespace ci ")
    assert "alive" not in " ".join(rows)


def test_explain_knows_a_hold_of_acquire_on_a_store_that_sees_no_processes():
    who = Owner(user="ann", host="box", pid=4711, program="lockkit")
    note = {"acquire": True, "printed": True}
    claim = ClaimInfo("x", "3f2a9c01b7de", "HELD", who, 7, 0, ttl=30.0, since=time.time(), note=note)
    told = " ".join(sentences(LockInfo("x", (claim,)), time.time()))
    assert "no process is attached to it" in told
    assert "lapses by itself 30 s after it was taken" in told
    assert "To end it, with the token that was printed: lockkit release x --token-file FILE" in told
    assert "alive" not in told


def test_lines_to_copy_can_be_pasted_whatever_the_name(lockkit):
    assert "lockkit release 'my job' ends it" in lockkit("acquire", "my job", "--ttl", "1m").stdout
    elsewhere = lockkit(
        "acquire", "x", "--ttl", "1m", "--namespace", "ci", "--url", f"sqlite:{lockkit.folder}/x.db"
    )
    assert f"lockkit release --url sqlite:{lockkit.folder}/x.db --namespace ci x ends it" in elsewhere.stdout
    busy = [
        ("acquire", "my job", "--ttl", "1m", "--no-wait"),
        ("acquire", "my job", "--ttl", "1m", "--timeout", "100ms"),
        ("run", "my job", "--no-wait", "--", "true"),
        ("run", "my job", "--timeout", "100ms", "--", "true"),
        ("wait", "my job", "--timeout", "100ms"),
        ("evict", "my job", "--claim", "0" * 12, "--reason", "r"),
    ]
    for words in busy:
        assert "lockkit explain 'my job')" in lockkit(*words).stderr, words


@pytest.mark.parametrize("name", ["-x", "--help"])
def test_lines_to_copy_can_be_pasted_if_the_name_is_like_an_option(lockkit, name):
    told = lockkit("acquire", "--ttl", "1m", "--", name).stdout
    assert f"; lockkit release -- {name} ends it" in told
    (claim,) = json.loads(lockkit("explain", "--json", "--", name).stdout)["lock"]["holders"]
    *_, release, evict = lockkit("explain", "--", name).stdout.splitlines()[:-1]
    assert evict.endswith(f': lockkit evict --claim {claim["claim_id"]} --reason "..." -- {name}')
    busy = lockkit("acquire", "--ttl", "1m", "--no-wait", "--", name).stderr
    assert f"(see: lockkit explain -- {name})" in busy
    assert lockkit(*shlex.split(release.partition(": lockkit ")[2])).returncode == 0
    assert lockkit("run", "--no-wait", "--", name, "--", "true").returncode == 0
    assert lockkit("run", "--", name, "--", "sh", "-c", "exit 7").returncode == 7


def test_wait_returns_when_it_is_free_and_takes_nothing(lockkit):
    holder = lockkit.holder("x")
    waiter = lockkit.start("wait", "x")
    assert "waiting until 'x' is free; held by" in waiter.stderr.readline()
    assert len(lockkit.claims("x")) == 1
    holder.send_signal(signal.SIGTERM)
    assert waiter.wait(timeout=40) == 0
    assert lockkit.claims("x") == []


def test_wait_gives_up_after_its_timeout(lockkit):
    lockkit.holder("x")
    assert lockkit("wait", "x", "--timeout", "300ms").returncode == 124


def test_wait_is_content_with_a_free_permit(lockkit):
    lockkit.holder("x", "sleep", "--capacity", "2")
    assert lockkit("wait", "x", "--timeout", "300ms").returncode == 0


@pytest.mark.parametrize("how", ["--shared", "--exclusive"])
def test_wait_waits_for_readers_as_for_a_writer(lockkit, how):
    lockkit.holder("x", "sleep", how)
    assert lockkit("wait", "x", "--timeout", "300ms").returncode == 124


def test_evict_needs_the_claim_and_a_reason(lockkit):
    lockkit.holder("x")
    assert lockkit("evict", "x").returncode == 64
    assert lockkit("evict", "x", "--claim", "0" * 12).returncode == 64
    assert lockkit("evict", "x", "--claim", "0" * 12, "--reason", "r").returncode == 1
    assert len(lockkit.claims("x")) == 1


def test_evict_now_frees_at_once_and_warns(lockkit):
    lockkit.holder("x", "sleep", "--ttl", "10m")  # of which it would take minutes to hear
    (claim,) = lockkit.claims("x")
    done = lockkit("evict", "x", "--claim", claim["claim_id"], "--reason", "r", "--now")
    assert "may continue to work" in done.stderr
    assert lockkit("run", "x", "--timeout", "30s", "--", "true").returncode == 0


def test_evicting_a_waiter_says_that_it_queues_again(lockkit):
    lockkit.holder("x")
    waiter = lockkit.start("run", "x", "--", "true")
    lockkit.until(lambda: len(lockkit.claims("x")) == 2)
    (_, claim) = lockkit.claims("x")
    done = lockkit("evict", "x", "--claim", claim["claim_id"], "--reason", "r", "--now")
    assert done.returncode == 0
    assert re.search(rf"only waiting: \S+ pid {waiter.pid} \(true\) queues again, at the end", done.stdout)
    assert "may continue to work" not in done.stderr
    lockkit.until(lambda: len(lockkit.claims("x")) == 2)


def test_of_an_evicted_hold_that_nobody_stands_behind_the_way_out_is_told(lockkit):
    claim_id = lockkit.json("acquire", "x", "--ttl", "1h")["claim_id"]
    evicted = lockkit("evict", "x", "--claim", claim_id, "--reason", "too long").stdout
    explained = lockkit("explain", "x").stdout
    for told in evicted, explained:
        assert re.search(r"To end it, as \S+ on \S+: lockkit release x\n", told)
        assert f"to force it out: lockkit evict x --claim {claim_id} --now --reason" in told
    held = lockkit("held", "x")
    assert held.returncode == 1
    assert re.match(
        r"not held: evicted by .*: too long; it still blocks 'x' until .*: lockkit release x ends it",
        held.stdout,
    )
    assert lockkit("release", "x").returncode == 0
    assert lockkit.claims("x") == []


def test_an_evicted_hold_of_a_process_is_explained_with_what_ends_it_at_once(lockkit):
    who = Owner(user="ann", host="box", pid=4711, program="sleep")
    claim = ClaimInfo("x", "3f2a9c01b7de", "HELD", who, 7, 0, ttl=30.0, since=time.time(), evicted=True)
    told = " ".join(sentences(LockInfo("x", (claim,)), time.time()))
    assert "If you know that its holder is gone: lockkit evict x --claim 3f2a9c01b7de --now" in told


def test_resize_lets_more_in(lockkit):
    lockkit.holder("x", "sleep", "--capacity", "1")
    lockkit("resize", "x", "2")
    assert lockkit("run", "x", "--capacity", "2", "--no-wait", "--", "true").returncode == 0


@pytest.mark.parametrize(
    "mode, kind",
    [([], "a plain lock"), (["--shared"], "a reader/writer lock"), (["--exclusive"], "a reader/writer lock")],
)
def test_only_a_semaphore_is_resized(lockkit, mode, kind):
    lockkit("acquire", "x", "--ttl", "1m", *mode)
    (before,) = lockkit.claims("x")
    done = lockkit("resize", "x", "5")
    assert (done.returncode, f"'x' is used as {kind} by " in done.stderr) == (78, True)
    assert [claim["capacity"] for claim in lockkit.claims("x")] == [before["capacity"]]
    assert lockkit("acquire", "x", "--ttl", "1m", "--no-wait", "--capacity", "5").returncode != 0


def test_a_gpu_that_is_held_whole_is_not_resized_upward(lockkit):
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "1"
    uuid = lockkit.json("gpu", "ls")["gpus"][0]["uuid"]
    name = f"@pool/gpu-sim%2F{socket.gethostname()}/{uuid}"
    command = ["resize", name, "99999"]
    done = lockkit("run", "--gpu", "1", "--", sys.executable, "-m", "lockkit", *command)
    assert (done.returncode, "is held whole by" in done.stderr, "then resize it" in done.stderr) == (
        78,
        True,
        True,
    )
    assert lockkit(*command).returncode == 0


def test_a_gpu_that_nobody_has_taken_yet_is_not_resized(lockkit):
    name = f"@pool/gpu-sim%2F{socket.gethostname()}/GPU-none"
    done = lockkit("resize", name, "4096")
    assert (done.returncode, "nothing was changed" in done.stderr) == (78, True)


def test_who_uses_a_resized_semaphore_otherwise_is_told_its_capacity(lockkit):
    lockkit("acquire", "x", "--ttl", "1m", "--capacity", "2")
    lockkit("resize", "x", "1000000")
    done = lockkit("acquire", "x", "--ttl", "1m", "--capacity", "2", "--no-wait")
    assert (done.returncode, "in use with --capacity 1000000" in done.stderr) == (78, True)


@pytest.mark.parametrize("command", ["run", "acquire", "wait"])
def test_ctrl_c_is_told_in_one_line_by_every_command(lockkit, command):
    lockkit.holder("x")
    more = {"run": ["--", "true"], "acquire": ["--ttl", "1m"], "wait": []}[command]
    process = lockkit.start(command, "x", *more)
    while "held by" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.stderr.read() == "lockkit: interrupted\n"
    assert process.wait(timeout=40) == 130


# -- failures, doctor, config, plugins


def test_failures_are_listed_shown_and_resolved(lockkit):
    state = lockkit.folder / "state"
    state.mkdir(mode=0o700)
    record = {"name": "x", "claim": "0" * 12, "task": None, "errors": ["normal: no answer", "last: none"]}
    journal.append(state, record | {"expires_in_seconds": 90.0})
    assert lockkit("doctor", "--fail-on", "warning").returncode == 1
    (failure,) = lockkit.json("failures", "list")["failures"]
    listed = " ".join(lockkit("failures", "list").stdout.split())
    assert "0" * 12 in listed
    assert "no answer" in listed
    assert "no answer" in lockkit("failures", "show", failure["id"][:4]).stdout
    shown = lockkit("failures", "show", failure["id"]).stdout
    assert shown.splitlines()[2:] == [
        "name                x",
        "claim               000000000000",
        "task                -",
        "errors              normal: no answer",
        "                    last: none",
        "expires_in_seconds  90 s",
        f"Once it is dealt with: lockkit failures resolve {failure['id']}",
    ]
    assert not re.search(r"None|\[|\{|'", shown)
    assert lockkit("failures", "resolve", failure["id"]).returncode == 0
    assert lockkit.json("failures", "list")["failures"] == []
    (resolved,) = lockkit.json("failures", "list", "--all")["failures"]
    assert resolved["resolved"]


def test_doctor_has_one_sentence_per_finding(lockkit):
    done = lockkit("doctor")
    assert done.returncode == 0
    assert all(re.match("(ok|warning|error): ", row) for row in done.stdout.splitlines())
    assert "keep apart the processes of one user on one host" in done.stdout
    assert "other users have stores of their own" in done.stdout


@pytest.mark.parametrize(
    "args, code",
    [
        (["--url", "memory:"], 0),
        (["--url", "memory:", "--fail-on", "warning"], 1),
        (["--url", "sqlite:/proc/nowhere/x.db"], 2),
        (["--url", "nosuch:"], 2),
    ],
)
def test_doctor_exits_by_the_worst_finding(lockkit, args, code):
    done = lockkit("doctor", *args)
    assert done.returncode == code, done.stdout


@pytest.mark.parametrize(
    "mistake", ['url = "redis+cluster://h/3"', 'max_hold = "1s"\nage_hard = "1h"', 'url = "nosuch:"']
)
def test_a_mistake_in_a_profile_that_is_not_in_use_is_a_warning_of_doctor(lockkit, mistake):
    (lockkit.folder / "lockkit.toml").write_text(f"[profiles.p]\n{mistake}\n")
    done = lockkit("doctor")
    assert done.returncode == 0, done.stdout
    assert "warning: " in done.stdout
    assert lockkit("config", "check").returncode == (0 if "nosuch" in mistake else 78)
    assert lockkit("doctor", "--profile", "p").returncode == 2


HEALTH = """
import threading
from lockkit.facts import Finding
from lockkit.hooks import hookimpl

class Slow:
    @hookimpl
    def lockkit_health(self):
        threading.Event().wait()

class Broken:
    @hookimpl
    def lockkit_health(self, client):
        client.names()

class Well:
    @hookimpl
    def lockkit_health(self):
        return [Finding("well", "ok", "the plugin is well")]
"""


def test_doctor_goes_on_after_a_dead_store_and_a_hanging_plugin(lockkit):
    lockkit.install("health", HEALTH + "slow, broken, well = Slow(), Broken(), Well()\n")
    entries = "[lockkit]\n" + "".join(f"{each} = health:{each}\n" for each in ("slow", "broken", "well"))
    (lockkit.folder / "site/health-1.0.dist-info/entry_points.txt").write_text(entries)
    lockkit.install("wrong", "raise OSError('no import')\n")
    state = lockkit.folder / "state"
    state.mkdir(mode=0o700)
    journal.append(state, {"name": "x", "claim": "0" * 12, "errors": []})
    with socket.create_server(("127.0.0.1", 0)) as mute:  # which accepts and never answers
        url = f"etcd://127.0.0.1:{mute.getsockname()[1]}"
        impatient = ("doctor", "--url", f"{url}?request_timeout=0.5s")
        with ThreadPoolExecutor() as both:
            asked = both.submit(lockkit, *impatient, "--json")
            done = lockkit(*impatient)
        document = json.loads(asked.result().stdout)
    rows = done.stdout.splitlines()
    assert done.returncode == 2
    told = (
        ("ok", "environment is read"),
        ("warning", "plugin wrong: not loaded: OSError: no import"),
        ("error", "no answer from 127.0.0.1"),
        ("ok", "the plugin is well"),
        (
            "error",
            "plugin slow: its health check failed: TimeoutError: lockkit_health has not returned within 5 s",
        ),
        ("error", "plugin broken: its health check failed: OutcomeUnknown: no answer from 127.0.0.1"),
        ("ok", "GPU"),
        ("ok", "state folder"),
        ("warning", "1 failed release not resolved yet"),
    )
    for row, (severity, text) in zip(rows, told, strict=True):
        assert row.startswith(f"{severity}: ")
        assert text in row
    assert document["store"]["url"] == url
    assert [one["severity"] for one in document["findings"]] == [row.partition(":")[0] for row in rows]


def test_a_store_that_cannot_be_reached_is_told_with_its_origin_and_what_to_do(lockkit):
    url = "etcd://127.0.0.1:1"
    for options, env, told in (
        (["--url", url], {}, f"; to check it: lockkit doctor --url {url})"),
        (
            [],
            {"LOCKKIT_URL": url},
            "; the URL of the store is from LOCKKIT_URL; to check it: lockkit doctor)",
        ),
    ):
        done = lockkit("status", *options, env=env)
        assert (done.returncode, done.stderr.count("\n")) == (69, 1)
        assert done.stderr.rstrip().endswith(told)
    assert "lockkit doctor" not in lockkit("doctor", "--url", url).stdout


def test_doctor_says_what_it_did_not_check(lockkit):
    (lockkit.folder / "lockkit.toml").write_text("ttll = 3\n")
    done = lockkit("doctor")
    assert done.returncode == 2
    assert "warning: the store, the plugins and the journal were not checked" in done.stdout


def test_doctor_goes_on_after_a_store_that_cannot_be_chosen(lockkit):
    done = lockkit("doctor", "--url", "nosuch:")
    assert (done.returncode, "ok: state folder" in done.stdout) == (2, True)
    assert done.stdout.count("nosuch") == 1


def test_doctor_warns_once_of_a_memory_store(lockkit):
    rows = lockkit("doctor", "--url", "memory:").stdout.splitlines()
    assert len([row for row in rows if row.startswith("warning:")]) == 1


def test_single_settings_and_plugins_are_shown(lockkit):
    rows = lockkit.json("config", "show", "ttl", "url")["settings"]
    assert [row["key"] for row in rows] == ["url", "ttl"]
    (plugin,) = lockkit.json("plugins", "sqlite")["plugins"]
    assert plugin["name"] == "sqlite"
    for line, meant in (
        (["config", "show", "tll"], "there is no setting 'tll'; did you mean: lockkit config show ttl"),
        (["plugins", "redsi"], "there is no plugin 'redsi'; did you mean: lockkit plugins redis"),
    ):
        done = lockkit(*line)
        assert (done.returncode, done.stdout, done.stderr) == (64, "", f"lockkit: {meant}\n")


def test_a_resize_of_nothing_is_no_warning(lockkit):
    done = lockkit("resize", "nothing", "4")
    assert (done.returncode, done.stderr) == (0, "")
    assert "has no claims" in done.stdout


def test_config_show_says_where_a_value_came_from(lockkit):
    rows = lockkit.json("config", "show", "--namespace", "prod")["settings"]
    assert {"key": "namespace", "value": "prod", "source": "argument"} in rows
    values = {row["key"]: row["value"] for row in rows}
    assert (values["state_dir"], values["strict"], values["on_lost"]) == (
        str(lockkit.folder / "state"),
        False,
        "term",
    )
    assert None in values.values()
    assert "-" not in values.values()


def test_config_init_writes_a_file_that_checks(lockkit):
    assert lockkit("config", "init").returncode == 0
    assert (lockkit.folder / ".config/lockkit/config.toml").is_file()
    assert lockkit("config", "check").returncode == 0
    assert lockkit("config", "init").returncode == 1
    assert lockkit("config", "init", "--force").returncode == 0


def test_all_that_config_init_writes_can_be_uncommented(lockkit):
    lockkit("config", "init", "--file", "lockkit.toml")
    file = lockkit.folder / "lockkit.toml"
    lines = [line.removeprefix("#") for line in file.read_text().splitlines() if not line.startswith("# ")]
    state = f'state_dir = "{lockkit.folder}/state"'
    lines = [state if line.startswith("state_dir") else line for line in lines]
    file.write_text("\n".join(lines))
    assert lockkit("config", "check").returncode == 0
    done = lockkit("status")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--profile", "nosuch"],
        ["--url", "nosuch://x"],
        ["--url", "redis://h?ttl=abc&timeout"],
        ["--namespace", "a b"],
    ],
)
def test_config_check_judges_what_its_options_say(lockkit, options):
    done = lockkit("config", "check", *options)
    assert done.returncode == 78
    assert "config check" not in done.stdout


def test_config_check_finds_everything_and_exits_78(lockkit):
    (lockkit.folder / "lockkit.toml").write_text('ttll = "3s"\nnamespace = "a b"\n')
    done = lockkit("config", "check")
    assert done.returncode == 78
    assert "ttll" in done.stdout
    assert "namespace" in done.stdout


def test_plugins_lists_the_stores(lockkit):
    names = {row["name"] for row in lockkit.json("plugins")["plugins"]}
    assert {"memory", "sqlite"} <= names


def test_a_plugin_adds_commands(lockkit):
    lockkit.install(
        "greeter",
        "import click\nfrom lockkit.hooks import hookimpl\n"
        "@click.command('greet', help='Greet somebody.')\ndef greet(): print('hello')\n"
        "@hookimpl\ndef lockkit_commands(cli): cli.add_command(greet)\n",
    )
    assert lockkit("greet").stdout == "hello\n"
    assert "Greet somebody." in lockkit("--help").stdout
    assert lockkit("greet", env={"LOCKKIT_DISABLE_PLUGINS": "greeter"}).returncode == 64


def test_a_closed_pipe_is_no_traceback(lockkit):
    done = lockkit("run", "x", "--", "sh", "-c", " ".join(lockkit.line("config", "show")) + " | head -1")
    assert "Traceback" not in done.stderr


def test_json_is_written_in_one_line_to_a_pipe(lockkit):
    out = lockkit("doctor", "--json").stdout
    assert out.count("\n") == 1
    assert json.loads(out)["schema"] == "lockkit.doctor/1"


def test_the_line_that_evicts_can_be_pasted_and_has_no_secret_in_it(lockkit):
    lockkit.holder("backup")
    url = f"sqlite:{lockkit.folder}/state/lockkit.db"

    plain = lockkit("explain", "backup", "--url", url).stdout

    assert f"To force it out: lockkit evict --url {url} backup" in plain
    options, first = as_called(Session(False, "redis://:pw@h", "gpu", None))
    assert options == " --profile gpu"
    assert "LOCKKIT_URL" in first
