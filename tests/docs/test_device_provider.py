"""The plugin of the page about device providers lists AMD's cards, on a stand-in for AMD's library."""

from __future__ import annotations

import json
import textwrap

import pytest

AMDSMI = """
import json, os, sys

print("amdsmi: what the real one prints when it is imported")
print("amdsmi: and here as well", file=sys.stderr)

class AmdSmiException(Exception): pass
class AmdSmiLibraryException(AmdSmiException): pass

opened = 0

def amdsmi_init():
    global opened
    if "no driver" in _cards(): raise AmdSmiLibraryException("AMDSMI_STATUS_DRIVER_NOT_LOADED")
    opened += 1

def amdsmi_shut_down():
    global opened
    opened -= 1

def _cards():
    with open(os.environ["AMD_CARDS"]) as file: return json.load(file)

def amdsmi_get_processor_handles():
    assert opened == 1
    return list(range(len(_cards())))

def _asked(question):
    def answer(handle):
        assert opened == 1
        found = _cards()[handle].get(question)
        if found is None: raise AmdSmiLibraryException("AMDSMI_STATUS_NOT_SUPPORTED")
        return found
    return answer

amdsmi_get_gpu_device_uuid = _asked("uuid")
amdsmi_get_gpu_vram_usage = _asked("vram")
amdsmi_get_gpu_activity = _asked("activity")
amdsmi_get_gpu_asic_info = _asked("asic")
amdsmi_get_gpu_total_ecc_count = _asked("ecc")
amdsmi_get_gpu_process_list = _asked("processes")
"""

LOOK = """
from lockkit.cli.main import run
raise SystemExit(run(["gpu", "ls", "--json"]))
"""

IDLE = {
    "uuid": "74a1-00",
    "asic": {"market_name": "AMD Instinct MI300X"},
    "vram": {"vram_total": 196592, "vram_used": 283},
    "activity": {"gfx_activity": 3},
    "ecc": {"correctable_count": 7, "uncorrectable_count": 0},
    "processes": [],
}


@pytest.fixture(scope="module")
def site(installed):
    """The installed plugin, beside the stand-in."""
    folder = installed("amd-devices")
    (folder / "amdsmi.py").write_text(textwrap.dedent(AMDSMI))
    return folder


@pytest.fixture
def look(program, site, tmp_path, monkeypatch):
    """``lockkit gpu ls`` on a host with only AMD's cards: its exit code and its document."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")

    def show(cards):
        state = tmp_path / "cards.json"
        state.write_text(json.dumps(cards))
        monkeypatch.setenv("AMD_CARDS", str(state))
        done = program(LOOK, site=site, check=False)
        return done.returncode, json.loads(done.stdout or done.stderr)

    return show


def test_the_cards_are_listed_with_all_that_the_library_says(look):
    user = {"pid": 4711, "name": "python", "memory_usage": {"vram_mem": 5 << 30}}
    busy = IDLE | {"uuid": "74a1-01", "processes": [user], "vram": {"vram_total": 196592, "vram_used": 5403}}

    code, document = look([IDLE, busy])

    first, second = document["gpus"]
    assert code == 0
    assert (first["uuid"], first["name"], first["state"]) == ("AMD-74a1-00", "AMD Instinct MI300X", "free")
    assert (first["memory_bytes"], first["used_bytes"]) == (196592 << 20, 283 << 20)
    assert (first["utilisation_percent"], first["index"], second["index"]) == (3, 0, 1)
    assert second["state"] == "busy"
    assert [one["memory_bytes"] for one in second["processes"]] == [5 << 30]


def test_a_card_that_answers_nothing_hides_no_other(look):
    odd = {"uuid": "74a1-02", "activity": {"gfx_activity": "N/A"}}
    sick = IDLE | {"uuid": "74a1-03", "ecc": {"uncorrectable_count": 2}}

    _, document = look([{}, odd, sick, IDLE])

    well, nameless = document["gpus"][2], document["gpus"][-1]
    assert [(card["uuid"], card["state"]) for card in document["gpus"]] == [
        ("AMD-74a1-02", "unknown"),
        ("AMD-74a1-03", "faulty"),
        ("AMD-74a1-00", "free"),
        (None, "faulty"),
    ]
    assert document["gpus"][0]["processes"] is None
    assert (well["processes"], nameless["reasons"]) == ([], ["the driver does not give the card's UUID"])


@pytest.mark.parametrize(
    "cards, told",
    [
        ([], "AMD's driver finds no card"),
        (["no driver"], "AMD's driver fails: AMDSMI_STATUS_DRIVER_NOT_LOADED"),
    ],
)
def test_without_a_card_the_error_says_what_to_do(look, cards, told):
    code, document = look(cards)

    assert (code, document["error"]) == (78, "DevicesUnavailable")
    assert told in document["message"]
    assert "--gpu-sim" in document["hint"]


HUNG = """
import os, threading
import amd_devices
from lockkit import DevicesUnavailable

amd_devices.PATIENCE = 0.01
provider = amd_devices.AmdProvider()
held, end = threading.Event(), threading.Event()

def hang():
    with provider._one_at_a_time.of_this_process():
        held.set()
        end.wait()

thread = threading.Thread(target=hang)
thread.start()
held.wait()
try:
    provider.snapshot()
except DevicesUnavailable as error:
    print(error.message)
child = os.fork()
if not child:
    os._exit(len(provider.snapshot().devices))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
end.set()
thread.join()
"""


def test_a_look_that_hangs_collects_no_threads_and_hinders_no_forked_child(
    program, site, tmp_path, monkeypatch
):
    state = tmp_path / "cards.json"
    state.write_text(json.dumps([IDLE, IDLE | {"uuid": "74a1-01"}]))
    monkeypatch.setenv("AMD_CARDS", str(state))
    told = program(HUNG, site=site).stdout.splitlines()
    assert told == ["AMD's driver has not answered an earlier question yet", "2"]
