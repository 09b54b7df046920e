"""``lockkit run`` with several locks: all of them, any of them, and the members of a pool."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3

import pytest

CARDS = '[pools.cards]\nmembers = {0 = 80, 1 = 80, 2 = 40}\n[pools.seats]\nmembers = ["a", "b"]\n'
ENVIRONMENT = (
    'echo "$LOCKKIT_LEASE_NAMES"; echo "name $LOCKKIT_LEASE_NAME"; echo "members $LOCKKIT_POOL_MEMBERS"'
)


@pytest.fixture
def pools(lockkit):
    (lockkit.folder / "lockkit.toml").write_text(CARDS)
    return lockkit


def held(lockkit, *names):
    """A function that says whether each of these names has a holder."""
    return lambda: all(any(claim["state"] == "HELD" for claim in lockkit.claims(name)) for name in names)


def waiting(lockkit, *names):
    return lambda: all(any(claim["state"] == "WAITING" for claim in lockkit.claims(name)) for name in names)


def nothing_left(lockkit):
    return lockkit.json("status")["locks"] == []


def test_all_of_several_locks_are_held_while_the_command_runs(lockkit):
    done = lockkit(
        "run", "b", "a", "--report", "report", "--", "sh", "-c", f'{ENVIRONMENT}; echo "$LOCKKIT_HELD"'
    )
    *names, name, members, entries = done.stdout.splitlines()
    assert (names, name, members) == (["a", "b"], "name ", "members ")
    assert [entry["name"] for entry in json.loads(entries)] == ["a", "b"]
    assert all("token" not in entry for entry in json.loads(entries))
    report = json.loads((lockkit.folder / "report").read_text())
    assert (report["name"], report["fence"], report["release"]) == ("b, a", None, None)
    assert [(lease["name"], lease["release"]["outcome"]) for lease in report["leases"]] == [
        ("a", "RELEASED"),
        ("b", "RELEASED"),
    ]
    assert nothing_left(lockkit)


def test_the_variables_of_an_outer_lock_are_not_taken_for_those_of_several(lockkit):
    done = lockkit("run", "x", "--", *lockkit.line("run", "a", "b", "--", "sh", "-c", ENVIRONMENT))
    assert done.stdout.splitlines() == ["a", "b", "name ", "members "]


@pytest.mark.parametrize(
    "words", [["x"], ["a", "b"], ["--any", "a", "b"], ["--pool", "seats"], ["--gpu", "1"]], ids=" ".join
)
def test_a_run_without_a_timeout_waits_as_long_as_its_store_is_busy(pools, words):
    url = f"sqlite:{pools.folder}/locks.db"
    pools.env |= {"LOCKKIT_GPU_SIMULATE": "2", "LOCKKIT_URL": url}
    assert pools("run", *words, "--", "true").returncode == 0
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        run = pools.start("run", *words, "--", "echo", "done")
        told = next(
            line
            for line in run.stderr
            if "goes on" in line or "yet, trying" in line or line.startswith("lockkit:")
        )
        other.execute("COMMIT")
    assert run.wait(40) == 0, told + run.stderr.read()
    assert run.stdout.read() == "done\n"


def test_while_one_is_busy_none_of_the_others_is_left_held(lockkit):
    lockkit.holder("b")
    done = lockkit("run", "a", "b", "c", "--no-wait", "--", "true")
    assert done.returncode == 75
    assert "'b' is busy" in done.stderr
    done = lockkit("run", "a", "b", "c", "--timeout", "300ms", "--", "true")
    assert done.returncode == 124
    assert "waiting for 'b'" in done.stderr
    assert lockkit("run", "a", "b", "--no-wait", "-E", "0", "--", "false").returncode == 0
    assert [lock["name"] for lock in lockkit.json("status")["locks"]] == ["b"]


def test_any_of_several_locks(lockkit):
    lockkit.holder("a")
    done = lockkit("run", "--any", "a", "b", "--", "sh", "-c", ENVIRONMENT)
    assert done.stdout.splitlines() == ["b", "name b", "members "]
    holder = lockkit.holder("b")
    done = lockkit("run", "--any", "a", "b", "--no-wait", "--", "true")
    assert (done.returncode, "each of 'a', 'b' is busy" in done.stderr) == (75, True)
    waiter = lockkit.start("run", "--any", "a", "b", "--", "sh", "-c", ENVIRONMENT)
    lockkit.until(waiting(lockkit, "a", "b"))
    holder.terminate()
    out, _ = waiter.communicate(timeout=40)
    assert out.splitlines()[0] == "b"
    assert [lock["name"] for lock in lockkit.json("status")["locks"]] == ["a"]


def test_ctrl_c_while_waiting_leaves_nothing(lockkit):
    lockkit.holder("b")
    waiter = lockkit.start("run", "a", "b", "c", "--", "true")
    assert any("waiting for 'b': you are 1st" in line for line in waiter.stderr)
    waiter.send_signal(signal.SIGINT)
    waiter.communicate(timeout=40)
    assert waiter.returncode == 130
    assert [lock["name"] for lock in lockkit.json("status")["locks"]] == ["b"]
    assert len(lockkit.claims("b")) == 1


def test_the_loss_of_one_ends_the_command(lockkit):
    run = lockkit.start(
        "run", "a", "b", "--ttl", "2s", "--kill-after", "500ms", "--report", "report", "--", "sleep", "60"
    )
    lockkit.until(held(lockkit, "a", "b"))
    (claim,) = lockkit.claims("b")
    lockkit("evict", "b", "--claim", claim["claim_id"], "--reason", "test")
    _, err = run.communicate(timeout=40)
    assert run.returncode == 76
    assert "the lock 'b' was lost while the command ran: evicted by" in err
    assert json.loads((lockkit.folder / "report").read_text())["evicted"]["reason"] == "test"
    lockkit.until(lambda: nothing_left(lockkit))


def test_members_of_a_pool(pools):
    done = pools(
        "run", "--pool", "cards", "--count", "2", "--report", "report", "--", "sh", "-c", ENVIRONMENT
    )
    assert done.stdout.splitlines() == ["@pool/cards/0", "@pool/cards/1", "name ", "members 0", "1"]
    report = json.loads((pools.folder / "report").read_text())
    assert (report["name"], [lease["member"] for lease in report["leases"]]) == ("cards", ["0", "1"])
    done = pools("run", "--pool", "seats", "--", "sh", "-c", ENVIRONMENT)
    assert done.stdout.splitlines() == ["@pool/seats/a", "name @pool/seats/a", "members a"]
    assert nothing_left(pools)


@pytest.mark.parametrize(
    "words, names",
    [
        (("a", "b"), ("a", "b")),
        (("a", "b", "--any"), ("a",)),
        (("--pool", "seats", "--count", "2"), ("@pool/seats/a", "@pool/seats/b")),
    ],
)
def test_the_reason_of_a_run_is_shown_with_each_of_its_locks(pools, words, names):
    done = pools("run", *words, "--reason", "nightly", "--", *pools.line("status", "--json"))
    held = {lock["name"]: lock["holders"][0] for lock in json.loads(done.stdout)["locks"]}
    assert {name: holder["reason"] for name, holder in held.items()} == dict.fromkeys(names, "nightly")


def test_shares_of_members_and_a_request_that_has_to_wait(pools):
    first = pools.start("run", "--pool", "cards", "--count", "3", "--each", "20", "--", "sleep", "60")
    pools.until(held(pools, "@pool/cards/0", "@pool/cards/1", "@pool/cards/2"))
    done = pools("run", "--pool", "cards", "--count", "3", "--each", "20", "--", "sh", "-c", ENVIRONMENT)
    assert done.stdout.splitlines()[-3:] == ["members 0", "1", "2"]
    assert pools("run", "--pool", "cards", "--no-wait", "--", "true").returncode == 75
    done = pools("run", "--pool", "cards", "--count", "2", "--timeout", "300ms", "--", "true")
    assert done.returncode == 124
    assert "pool 'cards' did not give 2 members in time, and it had 0" in done.stderr
    waiter = pools.start("run", "--pool", "cards", "--count", "2", "--", "sh", "-c", ENVIRONMENT)
    pools.until(waiting(pools, "@pool/cards/0", "@pool/cards/1", "@pool/cards/2"))
    (gate,) = pools.claims("@pool/cards")
    assert gate["owner"]["program"] == "sh"
    told = pools("explain", "@pool/cards").stdout
    assert (
        "'@pool/cards' is the gate of pool 'cards', which requests for its members pass one by one." in told
    )
    assert "The request at the gate waits for 2 members; all others wait behind it." in told
    assert "'@pool/cards/0' is member '0' of pool 'cards'." in pools("explain", "@pool/cards/0").stdout
    first.terminate()
    out, _ = waiter.communicate(timeout=40)
    *names, name, _, _ = out.splitlines()
    assert (len(names), name) == (2, "name ")  # those that came free first


@pytest.mark.parametrize(
    "words, code, told",
    [
        (["--pool", "cards", "--count", "4"], 78, "only 3 members"),
        (["--pool", "cards", "--each", "81"], 78, "only 0 members with room for 81"),
        (["--pool", "card"], 78, "did you mean cards?"),
        (["@pool/cards/0"], 78, "belongs to a pool"),
        (["--pool", "cards", "x"], 64, "--pool takes the place of the names"),
        (["x", "--count", "2"], 64, "--count needs --pool"),
        (["x", "--each", "2"], 64, "--each needs --pool"),
        (["--pool", "cards", "--any"], 64, "--any and --pool"),
        (["--pool", "cards", "--shared"], 64, "--shared and --pool"),
        (["a", "b", "-x"], 64, "there is no option -x"),
        ([], 64, "name of the lock is missing"),
    ],
)
def test_what_can_never_be_is_refused(pools, words, code, told):
    done = pools("run", *words, "--", "touch", "ran")
    assert done.returncode == code
    assert told in done.stderr
    assert not (pools.folder / "ran").exists()


def test_dashes_in_the_wrong_place_are_seen(lockkit):
    done = lockkit("run", "a", "sleep", "--", "3")
    assert done.returncode == 127
    assert "did you mean: lockkit run a -- sleep -- 3" in done.stderr


def test_a_run_inside_a_run(pools):
    inner = pools.line("run", "a", "c")
    done = pools("run", "a", "b", "--", *inner, "--no-wait", "--", "true")
    assert "'a' is held by the lockkit run or task around this one" in done.stderr
    assert done.returncode == 75
    done = pools("run", "a", "b", "--", *inner, "--nested", "reuse", "--", "sh", "-c", ENVIRONMENT)
    assert done.stdout.splitlines() == ["a", "c", "name ", "members "], "it works under both"
    line = pools.line("run", "--pool", "seats", "--nested", "reuse", "--", "echo", "inner")
    assert pools("run", "--pool", "seats", "--", *line).stdout == "inner\n"
    line = pools.line("run", "--pool", "seats", "--count", "2", "--nested", "reuse", "--", "echo", "inner")
    done = pools("run", "--pool", "seats", "--", *line)
    assert (done.returncode, "does not hold enough of pool 'seats'" in done.stderr) == (75, True)


def test_the_pools_of_the_configuration_are_shown_and_completed(pools):
    settings = {one["key"]: one["value"] for one in pools.json("config", "show")["settings"]}
    assert settings["pools.seats"] == ["a", "b"]
    env = {"_LOCKKIT_COMPLETE": "bash_complete", "COMP_WORDS": "lockkit run --pool ", "COMP_CWORD": "3"}
    completed = pools.run(pools.patient_line(), env=pools.env | env).stdout
    assert {"plain,cards", "plain,seats"} <= set(completed.split())


def test_only_commands_that_look_complete_the_names_of_pools(pools):
    """The names of gates and members of pools cannot be locked by name."""
    holder = pools.start("run", "--pool", "seats", "--", "sleep", "60")
    pools("acquire", "backup", "--ttl", "5m")
    pools.until(held(pools, "@pool/seats/a"))
    for words, expected in (
        ("run", {"plain,backup"}),
        ("acquire", {"plain,backup"}),
        ("explain", {"plain,backup", "plain,@pool/seats/a"}),
    ):
        env = {"_LOCKKIT_COMPLETE": "bash_complete", "COMP_WORDS": f"lockkit {words} ", "COMP_CWORD": "2"}
        assert set(pools.run(pools.patient_line(), env=pools.env | env).stdout.split()) == expected
    holder.terminate()
