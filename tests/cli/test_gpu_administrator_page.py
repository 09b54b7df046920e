"""The administrator's page about GPUs, command by command, with real paths in a mount namespace."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from lockkit.gpu.simulated import SimulatedProvider
from support.pages import DOCS, section

from .test_host import private_root, world  # noqa: F401 (a fixture)

PAGE = (DOCS / "howto/gpu-administrator.md").read_text()
UUID = "GPU-54a033e8-179f-575a-96c5-1cc2999ec69f"
"""The card that the page resizes."""
NOT_OURS = ("usermod", "systemctl", "nvidia-smi")
"""Programs of the page that a test can only leave out."""
HEAD = """
import pathlib, re, time
os.environ["LOCKKIT_GPU_SIMULATE"] = "4"
os.environ["PATH"] = os.path.dirname(sys.executable) + ":" + os.environ["PATH"]
state = pathlib.Path(os.environ["LOCKKIT_STATE_DIR"])
state.mkdir(mode=0o700)

def shell(line):
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd="/", timeout=60)
    told.append([done.returncode, done.stdout + done.stderr])

def gpus():
    return json.loads(lockkit("gpu", "ls", "--json")["out"])["gpus"]

def until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, (told, gpus())
        time.sleep(0.05)
"""
FAULTY = """
from lockkit import connect
from lockkit.gpu.host_pools import simulated
from lockkit.gpu.quarantine import quarantine_faulty
with connect() as client:
    cards = [one["uuid"] for one in gpus()]
    host = simulated(os.uname().nodename)
    quarantine_faulty(client, host, cards[3], "the card must be reset", client.owner, cards)
"""


def commands(title):
    """The commands below a heading, run by root on simulated cards, in a world without other users."""
    lines = re.findall(r"^\$ (?:sudo )?(.*)$", section(PAGE, title), re.MULTILINE)
    assert lines, title
    found = [line for line in lines if line.split()[0] not in NOT_OURS]
    if os.geteuid() != 0:
        found = [line.replace("--group gpu --create-group", "--group root") for line in found]
    return found


def unit():
    """The command of the page's service, which looks every 100 ms here."""
    (text,) = re.findall(r"^```ini\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    parser = configparser.ConfigParser()
    parser.optionxform = str
    parser.read_string(text)
    assert parser.sections() == ["Unit", "Service", "Install"]
    program, *words = shlex.split(parser["Service"]["ExecStart"])
    assert program.endswith("/bin/lockkit")
    at = words.index("--every") + 1
    return [str(Path(sys.executable).parent / "lockkit"), *words[:at], "100ms", *words[at + 1 :]]


@private_root
@pytest.mark.full
def test_the_page_is_followed_from_the_store_over_the_recoverer_to_a_resized_card(world):  # noqa: F811
    init, doctor = commands("## Set up the store")
    (dry,) = commands("## Keep a recoverer running")
    mark, look, clear = commands("## Keep a card from being given out")
    (adopt,) = commands("## Adopt a job that runs without a lock")
    reset = commands("## Reset one card")
    drain, after, undrain = commands("## Upgrade the driver")
    (resize,) = commands("## A new card, and a card that has changed")
    card = SimulatedProvider(4).snapshot().devices[0].uuid
    assert UUID in resize
    resize = resize.replace("gpu%2Fbox", f"gpu-sim%2F{os.uname().nodename}").replace(UUID, card)

    told = world(f"""{HEAD}
shell({init!r})
shell({doctor!r})
{FAULTY}
shell({dry!r})
service = subprocess.Popen({unit()!r}, stdout=subprocess.DEVNULL)
shell({mark!r})
shell({look!r})
until(lambda: [one["state"] for one in gpus()] == ["free", "quarantined", "free", "free"])
shell({clear!r})
job = subprocess.Popen(["sleep", "300"])
process = {{"pid": job.pid, "program": "sleep", "memory": "3GiB", "while_alive": True}}
(state / "simulated-gpus.json").write_text(json.dumps({{"2": {{"processes": [process]}}}}))
shell({adopt!r}.replace("4711", str(job.pid)))
shell("lockkit gpu ls")
job.kill()
job.wait()
until(lambda: gpus()[2]["state"] == "free")
for line in {reset!r}:
    shell(line)
shell("lockkit run --gpu 1 --gpu-id 0 --gpu-mem 1GiB -- true")
service.terminate()
service.wait()
shell({drain!r})
shell("lockkit run --gpu 1 -- true")
shell({after!r})
shell({undrain!r})
shell({resize!r})
shell("lockkit run --gpu 1 --gpu-id 0 --gpu-mem 23GiB --no-wait -- true")
shell("lockkit host remove")
told.append(service.returncode)
""")
    *steps, service = told
    outs = dict(zip(
        ("init", "doctor", "dry", "mark", "look", "clear", "adopt", "adopted", "mark again", "marked",
         "clear again", "share", "drain", "refused", "after", "undrain", "resize", "wide", "remove"),
        steps, strict=True,
    ))  # fmt: skip
    codes = {key: code for key, (code, _) in outs.items() if code}
    assert codes == {"dry": 1, "refused": 75, "wide": 78}, outs
    said = {key: text for key, (_, text) in outs.items()}
    assert "keep apart the processes of all users of one host" in said["doctor"]
    assert "would fix" in said["dry"] and "GPU 3 is well again" in said["dry"]  # noqa: PT018
    assert "ticket 4711: the fan" in said["look"]
    assert "can be given out again" in said["clear"]
    assert "GPU 2 is held for " in said["adopt"]
    assert "keeper of sleep pid" in said["adopted"]
    assert "being reset" in said["marked"]
    assert "new driver at 22:00" in said["refused"]
    assert "4 GPUs: 4 free" in said["after"]
    assert "23040" in said["resize"]
    assert "its record has only 22.5 GiB for claims" in said["wide"]
    assert service == 0
