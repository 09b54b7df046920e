"""``lockkit gpu adopt``: a keeper holds the cards of a running job; real processes, on every store."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from importlib.util import find_spec

import pytest

from lockkit.values.identity import user_name
from support.nvml import Host, build
from support.sleeper import sleeping

from .test_gpu import steer
from .test_json import check
from .test_run_cards import CARDS, HOST, cards, held, line_of, queue_of  # noqa: F401 (a fixture)


@pytest.fixture
def job(cards):  # noqa: F811
    """A job that computes on the first card, and was started without a lock."""
    with sleeping() as process:
        steer(cards, _0={"processes": [on(process)]})
        yield process


def on(process):
    return {
        "pid": process.pid,
        "user": user_name(),
        "program": "sleep",
        "memory": "3GiB",
        "while_alive": True,
    }


def free(cards, uuid):  # noqa: F811
    return lambda: not cards.claims(queue_of(uuid))


def test_a_job_is_held_until_it_ends(cards, place, job):  # noqa: F811
    keeper = cards.start("gpu", "adopt", job.pid, "--private", "--ttl", "5s")
    assert keeper.stdout.readline() == (
        f"GPU 0 is held for {user_name()} pid {job.pid} (sleep) until it ends; "
        f"the keeper is pid {keeper.pid}\n"
    )
    (card, _) = check(cards.json("gpu", "ls"))["gpus"]
    assert (card["state"], card["holders"][0]["owner"]["pid"]) == ("held", keeper.pid)
    assert card["holders"][0]["note"]["adopted"]["pid"] == job.pid
    assert (card["holders"][0]["process_bound"], card["holders"][0]["ttl_seconds"]) == (False, 5.0)
    its = cards("gpu", "adopt", keeper.pid, "--private")
    assert (
        its.returncode,
        "uses lockkit itself, as lockkit run does, and holds GPU 0 already" in its.stderr,
    ) == (78, True)
    again = cards("gpu", "adopt", job.pid, "--private")
    assert again.returncode == 75
    assert (
        f"GPU 0: held by {user_name()}@{HOST} pid {keeper.pid} (keeper of sleep pid {job.pid})"
        in again.stderr
    )
    job.kill()
    out, _ = keeper.communicate(timeout=40)
    assert keeper.returncode == 0
    assert out == f"{user_name()} pid {job.pid} (sleep) has ended; GPU 0 is released\n"
    assert free(cards, CARDS[0])()


def test_a_killed_keeper_leaves_the_card_unmanaged(cards, place, job):  # noqa: F811
    keeper = cards.start("gpu", "adopt", job.pid, "--private", "--ttl", "3s")
    keeper.stdout.readline()
    keeper.kill()
    keeper.wait(40)
    if place == "sqlite":
        assert free(cards, CARDS[0])()
    cards.until(free(cards, CARDS[0]))
    assert cards.json("gpu", "ls")["gpus"][0]["state"] == "busy"
    assert job.poll() is None
    again = cards.start("gpu", "adopt", job.pid, "--private")
    assert again.stdout.readline().startswith("GPU 0 is held for ")


def test_the_next_holder_is_told_how_the_job_left_the_card(cards, job):  # noqa: F811
    keeper = cards.start("gpu", "adopt", job.pid, "--private", "--json")
    claim = json.loads(keeper.stdout.readline())["leases"][0]["claim_id"]
    job.kill()
    assert keeper.wait(40) == 0
    receipt = cards.json("gpu", "ls")["gpus"][0]["receipt"]
    assert (receipt["outcome"], receipt["leftover_bytes"], receipt["claim_id"]) == ("clean", 0, claim)


def test_what_the_job_leaves_on_the_card_is_in_the_receipt(cards, job):  # noqa: F811
    steer(cards, _0={"processes": [on(job)], "used": "3GiB"})
    keeper = cards.start("gpu", "adopt", job.pid, "--private")
    keeper.stdout.readline()
    job.kill()
    assert keeper.wait(40) == 0
    card = cards.json("gpu", "ls")["gpus"][0]
    assert (card["state"], card["receipt"]["outcome"], card["receipt"]["leftover_bytes"]) == (
        "dirty", "dirty", 3 << 30,
    )  # fmt: skip


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_keeper_that_is_ended_says_what_becomes_of_job_and_card(cards, job, number, code):  # noqa: F811
    keeper = cards.start("gpu", "adopt", job.pid, "--private")
    keeper.stdout.readline()
    keeper.send_signal(number)
    out, _ = keeper.communicate(timeout=40)
    assert keeper.returncode == code
    assert (
        f"pid {job.pid} (sleep) goes on, and GPU 0 is no longer held for it: "
        "busy (unmanaged) while it computes" in out
    )
    assert out.endswith(f"to adopt it again: lockkit gpu adopt {job.pid}\n")
    assert cards.json("gpu", "ls")["gpus"][0]["receipt"]["outcome"] == "unknown"
    assert free(cards, CARDS[0])()
    assert job.poll() is None


def test_a_waiting_run_sees_the_keeper_and_gets_the_card_when_the_job_ends(cards, job):  # noqa: F811
    cards.env["LOCKKIT_GPU_SIMULATE"] = "1"
    waiter = cards.start("run", "--gpu", "1", "--private", "--", "true")
    assert "busy (unmanaged)" in line_of(waiter, "waiting for 1 GPU")
    keeper = cards.start("gpu", "adopt", job.pid, "--private")
    assert keeper.stdout.readline().startswith("GPU 0 is held for ")
    later = cards("run", "--gpu", "1", "--private", "--no-wait", "--", "true")
    assert (later.returncode, f"keeper of sleep pid {job.pid}" in later.stderr) == (75, True)
    job.kill()
    job.wait()
    assert (keeper.wait(40), waiter.wait(40)) == (0, 0)


def test_a_detached_keeper_works_on_in_the_background(cards, job):  # noqa: F811
    # The command returns although the keeper lives on: the keeper has closed the pipes of the command.
    done = cards("gpu", "adopt", job.pid, "--private", "--detach")
    assert done.returncode == 0
    pid = int(re.search(r"the keeper is pid (\d+)\n", done.stdout)[1])
    assert os.getsid(pid) == pid
    assert held(cards, CARDS[0])()
    again = cards("gpu", "adopt", job.pid, "--private", "--detach")
    assert (again.returncode, f"pid {pid} (keeper of sleep" in again.stderr) == (75, True)
    assert again.stderr.count("\n") == 1
    job.kill()
    cards.until(free(cards, CARDS[0]))


def test_an_eviction_ends_the_keeper_and_not_the_job(cards, job):  # noqa: F811
    keeper = cards.start("gpu", "adopt", job.pid, "--private", "--ttl", "2s")
    keeper.stdout.readline()
    (claim,) = cards.claims(queue_of(CARDS[0]))
    cards("ask-release", queue_of(CARDS[0]), "--claim", claim["claim_id"], "--reason", "please")
    assert "please; the keeper goes on until " in line_of(keeper, "lockkit: asked to release by ")
    cards("evict", queue_of(CARDS[0]), "--claim", claim["claim_id"], "--reason", "enough")
    _, err = keeper.communicate(timeout=40)
    assert keeper.returncode == 76
    assert "GPU 0 is no longer held, because the lock was lost: it was evicted; " in err
    assert f"pid {job.pid} (sleep) goes on without it (to adopt it again: lockkit gpu adopt {job.pid})" in err
    assert job.poll() is None


def test_a_stopped_keeper_frees_the_card_by_its_ttl(cards, place, job):  # noqa: F811
    keeper = cards.start("gpu", "adopt", job.pid, "--private", "--ttl", "1s")
    assert keeper.stdout.readline().startswith("GPU 0 is held for ")
    keeper.send_signal(signal.SIGSTOP)
    cards.until(free(cards, CARDS[0]))
    keeper.send_signal(signal.SIGCONT)
    _, err = keeper.communicate(timeout=40)
    assert (keeper.returncode, "it was not renewed in time" in err) == (76, True)


def test_each_event_is_a_document(cards, job):  # noqa: F811
    keeper = cards.start("gpu", "adopt", job.pid, "--private", "--json")
    began = check(json.loads(keeper.stdout.readline()))
    assert (began["event"], began["job"]["pid"], began["keeper"]) == ("held", job.pid, keeper.pid)
    assert [one["uuid"] for one in began["gpus"]] == [CARDS[0]]
    assert [(one["member"], one["release"]) for one in began["leases"]] == [(CARDS[0], None)]
    busy = check(json.loads(cards("gpu", "adopt", job.pid, "--private", "--json").stderr))
    assert (busy["error"], busy["holder"]["owner"]["pid"]) == ("busy", keeper.pid)
    job.kill()
    ended = check(json.loads(keeper.communicate(timeout=40)[0]))
    assert (ended["event"], ended["leases"][0]["release"]["outcome"]) == ("ended", "RELEASED")


@pytest.mark.parametrize(
    "words, code, told",
    [
        (["0"], 64, "must be a whole number from 1 to"),
        (["4194304"], 78, "there is no process with pid 4194304"),
        (["PID", "--gpu", "1"], 78, "does not compute on GPU 1 (it computes on GPU 0)"),
        (["PID", "--gpu", "7"], 78, "there is no GPU '7'"),
        (["PID", "--gpu-mem", "1GiB"], 78, "uses 3 GiB of GPU 0 already, and 1 GiB are to be declared"),
        ([], 64, "PID is missing"),
    ],
)
def test_what_cannot_be_adopted_is_refused(cards, job, words, code, told):  # noqa: F811
    done = cards("gpu", "adopt", *(job.pid if word == "PID" else word for word in words), "--private")
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr
    assert done.stderr.count("\n") == 1


def test_a_card_on_which_others_compute_too_is_adopted_only_if_that_is_allowed(cards, job):  # noqa: F811
    bob = {"pid": None, "user": "bob", "program": "jupyter", "memory": "1GiB"}
    steer(cards, _0={"processes": [on(job), bob]})
    refused = cards("gpu", "adopt", job.pid, "--private")
    assert (refused.returncode, "GPU 0: others compute on it, too: " in refused.stderr) == (75, True)
    keeper = cards.start("gpu", "adopt", job.pid, "--private", "--allow-busy")
    assert keeper.stdout.readline().startswith("GPU 0 is held for ")
    job.kill()
    assert keeper.wait(40) == 0


def test_ctrl_c_at_a_terminal_ends_the_keeper_alone(cards, tty, job):  # noqa: F811
    terminal = tty("sh", "-i")
    terminal.expect("PROMPT> ")
    terminal.type(" ".join(cards.line("gpu", "adopt", job.pid, "--private")) + "\n")
    terminal.expect("GPU 0 is held for ")
    terminal.type("\x03")
    terminal.expect("goes on, and GPU 0 is no longer held")
    terminal.expect("PROMPT> ")
    terminal.type("echo code=$?\n")
    terminal.expect("code=130")
    assert job.poll() is None


def test_the_processes_that_nvidias_driver_shows_are_adopted(lockkit, tmp_path, job):
    if shutil.which("cc") is None or find_spec("pynvml") is None:
        pytest.skip("needs a C compiler and nvidia-ml-py")
    host = Host(tmp_path / "driver", build(tmp_path / "driver"))
    uuids = [host.card(0), host.card(1)]
    lockkit.env |= {key: host.environ()[key] for key in ("LD_LIBRARY_PATH", "NVML_STATE")}
    lockkit.env |= {"LOCKKIT_GPU_SIMULATE": "0", "LOCKKIT_GPU_HOST": "box"}
    host.set(1, "process", f"{job.pid} {3 << 30}", "4194303")
    busy = lockkit("gpu", "adopt", job.pid, "--private")
    assert (busy.returncode, "GPU 1: others compute on it, too: " in busy.stderr) == (75, True), busy.stderr
    host.set(1, "process", f"{job.pid} {3 << 30}")
    keeper = lockkit.start("gpu", "adopt", job.pid, "--private", "--json")
    document = check(json.loads(keeper.stdout.readline()))
    assert ([one["uuid"] for one in document["gpus"]], document["host"]) == ([uuids[1]], "box")
    assert [one["state"] for one in lockkit.json("gpu", "ls")["gpus"]] == ["free", "held"]
    job.kill()
    assert keeper.wait(40) == 0
