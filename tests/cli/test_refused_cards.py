"""Impossible requests for cards: refused before they queue, with a remedy, in the shell and in Python.

The host is one of NVIDIA's, with NVIDIA's own module on a driver that is compiled here.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec

import pytest

from lockkit.values.identity import this_process
from support.nvml import Host, build

from .test_json import check

GIB = 1 << 30


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if shutil.which("cc") is None or find_spec("pynvml") is None:
        pytest.skip("needs a C compiler and nvidia-ml-py")
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def host(lockkit, library):
    """A host with one divided and one whole card, on which the shell's programs run."""
    lockkit.folder.joinpath("state").mkdir(mode=0o700, exist_ok=True)
    host = Host(lockkit.folder / "state", library)
    host.card(0, mig=1, gpu=None)
    host.card("0.1", name="NVIDIA H100 80GB HBM3 MIG 1g.10gb", total=10 * GIB, reserved=0)
    host.card(1)
    apply(host, lockkit)
    return host


def apply(host, lockkit):
    environ = host.environ()
    lockkit.env |= {key: environ[key] for key in ("LD_LIBRARY_PATH", "NVML_STATE")}
    lockkit.env.pop("CUDA_VISIBLE_DEVICES", None)


def as_it_is(host, lockkit):
    pass


def without_library(host, lockkit):
    lockkit.env["LD_LIBRARY_PATH"] = "/nowhere"


def without_cards(host, lockkit):
    host.row("count", 0)


def old_distribution(host, lockkit):
    shadow(lockkit, "pynvml/__init__.py", "def nvmlInit(): pass\n")


def own_module(host, lockkit):
    shadow(lockkit, "pynvml.py", "cards = []\n")


def shadow(lockkit, name, text):
    place = lockkit.folder / "shadow" / name
    place.parent.mkdir(parents=True)
    place.write_text(text)
    lockkit.env["PYTHONPATH"] = f"{lockkit.folder / 'shadow'}:{lockkit.env.get('PYTHONPATH', '')}"


REFUSALS = {
    "an unknown UUID": (
        as_it_is, ["--gpu", "1", "--gpu-id", "GPU-ffffffff"], {"ids": ["GPU-ffffffff"]}, 78,
        "there is no GPU 'GPU-ffffffff'",
        "the GPUs are GPU 0 (GPU-0), slice of GPU 0 (MIG-0.1), GPU 1 (GPU-1)",
    ),
    "a card and its slice": (
        as_it_is, ["--gpu", "1", "--gpu-id", "GPU-0", "--gpu-id", "MIG-0.1"],
        {"ids": ["GPU-0", "MIG-0.1"]}, 78,
        "GPU-0 and its slice MIG-0.1 cannot both be asked for", "name the slices that will do, or the card",
    ),
    "a divided card": (
        as_it_is, ["--gpu", "1", "--gpu-id", "0"], {"ids": ["0"]}, 78,
        "it is divided into slices, and programs can use only those", "see: lockkit gpu ls",
    ),
    "no card": (
        as_it_is, ["--gpu", "0"], {"count": 0}, 64,
        "must be", "",
    ),
    "more memory than any card has": (
        as_it_is, ["--gpu", "1", "--gpu-mem", "900GiB"], {"memory": "900GiB"}, 78,
        "it has only 79.4 GiB for programs", "ask for less, or see: lockkit gpu ls",
    ),
    "more free memory than any card has": (
        as_it_is, ["--gpu", "1", "--min-free", "900GiB"], {"min_free": "900GiB"}, 78,
        "it has only 79.4 GiB for programs", "ask for less, or see: lockkit gpu ls",
    ),
    "more cards than there are": (
        as_it_is, ["--gpu", "3"], {"count": 3}, 78,
        "3 GPUs can never be had: only 1 of the 3 of this host will do", "ask for one slice for each process",
    ),
    "a host without the driver's library": (
        without_library, ["--gpu", "1"], {}, 78,
        "NVIDIA's library libnvidia-ml.so.1 is not on this host", "install NVIDIA's driver",
    ),
    "a host without cards": (
        without_cards, ["--gpu", "1"], {}, 78,
        "NVIDIA's driver finds no card", "lspci | grep -i nvidia",
    ),
    "the old distribution pynvml": (
        old_distribution, ["--gpu", "1"], {}, 78,
        "is not that of nvidia-ml-py", "pip uninstall -y pynvml nvidia-ml-py",
    ),
    "a module of one's own called pynvml": (
        own_module, ["--gpu", "1"], {}, 78,
        "is not NVIDIA's", "rename it if it is yours",
    ),
}  # fmt: skip


@pytest.fixture(params=REFUSALS)
def refusal(request, host, lockkit):
    change, words, how, code, told, hint = REFUSALS[request.param]
    change(host, lockkit)
    return words, how, code, told, hint


def test_the_command_line_refuses_it_and_says_what_to_do(lockkit, refusal):
    words, _, code, told, hint = refusal
    line = lockkit.line("run", *words, "--", "touch", "ran")
    done = lockkit.run(["sh", "-c", 'ulimit -t 1; exec "$@"', "sh", *line])  # a second of CPU time

    assert (done.returncode, told in done.stderr, hint in done.stderr) == (code, True, True), done.stderr
    assert not (lockkit.folder / "ran").exists()
    if code == 78:
        document = check(json.loads(lockkit("run", *words, "--json", "-q", "--", "touch", "ran").stderr))
        assert hint in document["hint"]
    assert lockkit.json("status")["locks"] == []


def test_python_refuses_it_and_says_what_to_do(host, refusal, lockkit):
    _, how, _, told, hint = refusal
    with host.requester(
        **{key: lockkit.env[key] for key in ("LD_LIBRARY_PATH", "PYTHONPATH") if key in lockkit.env}
    ) as program:
        refused = program.do("acquire", how)
        assert refused["error"] in ("ConfigError", "DevicesUnavailable")
        assert told in refused["told"]
        assert hint in (refused["hint"] or "")
        assert program.do("left") == []


@pytest.mark.parametrize(
    "words",
    [["2"], ["1", "--gpu-id", "GPU-1-as-it-is-called"], ["1", "--gpu-id", "1"], ["2", "--no-wait"]],
    ids=" ".join,
)
def test_what_a_card_alone_prevents_that_does_not_answer_now_may_be_had_later(lockkit, host, words):
    host.set(0, "mig", 0)
    host.set(1, "stuck nvmlDeviceGetHandleByIndex_v2", 1)
    lockkit.env["LOCKKIT_GPU_PATIENCE"] = "2s"
    done = lockkit("run", "--private", "--gpu", *words, "--", "touch", "ran")
    assert done.returncode == 69, done.stderr
    assert "the driver has not answered about the card" in done.stderr
    assert "never" not in done.stderr
    assert not (lockkit.folder / "ran").exists()
    assert lockkit("run", "--private", "--gpu", "3", "--", "true").returncode == 78


def test_the_slices_of_a_card_that_was_whole_are_shown_with_its_holder(lockkit, host):
    host.set(0, "mig", 0)
    process = lockkit.start(
        "run", "--gpu", "1", "--gpu-id", "GPU-0", "--private", "--", "sh", "-c", "echo runs; sleep 60"
    )
    assert process.stdout.readline() == "runs\n"
    host.set(0, "mig", 1)
    states = {one["uuid"]: one["state"] for one in lockkit.json("gpu", "ls")["gpus"]}
    assert states == {"GPU-0": "sliced", "MIG-0.1": "held", "GPU-1": "free"}
    row = next(row for row in lockkit("gpu", "ls").stdout.splitlines() if "MIG-0.1" in row)
    assert f"pid {process.pid} (sh), " in row
    asked = ("run", "--gpu", "1", "--gpu-id", "MIG-0.1", "--private", "--no-wait", "--", "true")
    assert f"slice MIG-0.1 of GPU 0: held by {this_process().user}@" in lockkit(*asked).stderr


def test_a_command_on_a_slice_sees_it_by_its_uuid_alone(lockkit, host):
    done = lockkit(
        "run",
        "--gpu",
        "1",
        "--gpu-id",
        "MIG-0.1",
        "--",
        "sh",
        "-c",
        'echo "$CUDA_VISIBLE_DEVICES|$LOCKKIT_GPU_UUIDS"',
    )
    assert done.stdout == "MIG-0.1|MIG-0.1\n"
    done = lockkit("run", "--gpu", "1", "--gpu-id", "MIG-0.1", "--visible", "index", "--", "touch", "ran")
    assert (done.returncode, "leave out --visible index" in done.stderr) == (78, True)
    assert not (lockkit.folder / "ran").exists()
