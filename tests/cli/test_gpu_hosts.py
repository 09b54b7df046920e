"""``lockkit gpu ls --all-hosts``: two hosts on one store, of which one is this host."""

from __future__ import annotations

import io
import json
import os
import signal

import pytest
from rich.console import Console

import lockkit.gpu
from lockkit import connect, hookimpl
from lockkit.errors import BackendUnavailable
from lockkit.gpu.capacities import capacities
from lockkit.gpu.cli.tables import table_of
from lockkit.gpu.devices import Device
from lockkit.gpu.enlisting import enlist
from lockkit.gpu.fleet import fleet
from lockkit.gpu.host_pools import ROOT, SIMULATED_ROOT, simulated
from lockkit.gpu.joining import by_store
from lockkit.gpu.judging import Receipt
from lockkit.gpu.known import NOTHING_KNOWN
from lockkit.gpu.quarantine import quarantine
from lockkit.gpu.receipts import put
from lockkit.gpu.simulated import SimulatedProvider
from lockkit.notes.members import pool_name
from lockkit.values.identity import this_process
from support.servers.redis import RedisServer

from .test_json import check

GIB = 1 << 30
BOX, CRATE = simulated("box"), simulated("crate")
CARDS = [card.uuid for card in SimulatedProvider(2).snapshot().devices]


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.full)])
def shared(request, lockkit):
    """The shell of the host box; the other one is crate."""
    lockkit.env |= {"LOCKKIT_GPU_SIMULATE": "2", "LOCKKIT_GPU_HOST": "box"}
    if request.param == "sqlite":
        lockkit.env["LOCKKIT_URL"] = f"sqlite:{lockkit.folder}/locks.db"
        yield lockkit
        return
    pytest.importorskip("redis")
    with RedisServer() as server:
        lockkit.env["LOCKKIT_URL"] = server.url()
        yield lockkit


class Cards:
    """A plugin whose cards count as real ones."""

    @hookimpl
    def lockkit_devices(self):
        return [SimulatedProvider(2)]


def crate(shell, simulate=2, **more):
    return connect(
        shell.env["LOCKKIT_URL"],
        gpu_simulate=simulate,
        gpu_host="crate",
        state_dir=str(shell.folder / "crate"),
        **more,
    )


def listed(shell):
    return {host["host"]: host for host in check(shell.json("gpu", "ls", "--all-hosts"))["hosts"]}


def test_the_cards_of_another_host_are_listed_as_the_store_knows_them(shared):
    assert "no host" not in shared("gpu", "ls", "--all-hosts").stdout
    assert list(listed(shared)) == [BOX]
    with crate(shared) as client:
        with lockkit.gpu.pool(client).acquire(
            memory="8GiB", ids=["0"], reason="evaluation", timeout=30
        ) as leases:
            news = {"used": 12 * GIB, "at": 1000}
            client._annotate(leases[0].name, leases[0].claim_id, {"lockkit": {"gpu": news}})
            quarantine(client, CRATE, CARDS[1], "it hums", this_process())
            found = listed(shared)
            told = shared("gpu", "ls", "--all-hosts").stdout
        first, second = found[CRATE]["gpus"]
        assert (found[BOX]["live"], found[CRATE]["live"]) == (True, False)
        assert [card["state"] for card in found[BOX]["gpus"]] == ["free", "free"]
        assert (first["state"], first["index"], first["name"], first["uuid"]) == (
            "shared",
            0,
            "Simulated GPU",
            CARDS[0],
        )
        assert (first["memory_bytes"], first["used_bytes"], first["processes"]) == (
            23.5 * GIB,
            12 * GIB,
            None,
        )
        assert first["uses"][0]["more_than_declared"]
        assert first["holders"][0]["reason"] == "evaluation"
        assert (second["state"], second["quarantine"]["reason"]) == ("quarantined", "it hums")
        assert (
            f"live readings are those of {BOX}, this host; "
            "of other hosts the store knows what their holders told last" in told
        )
        assert "2 hosts; 4 GPUs: 2 free, 1 shared, 1 quarantined" in told
        assert "8 GiB declared, 12 GiB used, more than declared, for: evaluation" in told
        put(
            client,
            CRATE,
            Receipt(CARDS[0], "dirty", GIB, fence=leases[0].fence + 1, by="ann@crate", at=1000.0),
        )
    first, _ = listed(shared)[CRATE]["gpus"]
    assert (first["state"], first["receipt"]["leftover_bytes"]) == ("unheld", GIB)
    assert first["reasons"] == ["left dirty by ann@crate with 1 GiB in use"]


def test_a_slice_on_another_host_is_held_by_whoever_holds_its_card_from_before_it_was_divided(client):
    card = Device("GPU-a", 0, "H100", 80 * GIB, 0, 0, 0, (), sliced=True)
    slices = [Device(f"MIG-{n}", 0, "H100 MIG", 10 * GIB, 0, 0, None, (), parent="GPU-a") for n in range(2)]
    pool = "gpu/crate"
    members = capacities(client, pool, [card, *slices])
    whole = client.pool(pool, members).acquire(among=["GPU-a"], timeout=10)
    (crate,) = fleet(client).hosts
    states = {one.uuid: by_store(one, crate.known[one.uuid], 0.0) for one in crate.devices}
    assert {uuid: one.state for uuid, one in states.items()} == dict.fromkeys(members, "held")
    me = client.owner
    assert all(f"{me.user}@{me.host} pid {me.pid}" in one.reasons[0] for one in states.values())
    whole.release()

    slice_alone = client.pool(pool, members, within=dict.fromkeys(["MIG-0", "MIG-1"], "GPU-a"))
    with slice_alone.acquire(among=["MIG-0"], timeout=10):
        (crate,) = fleet(client).hosts
        assert {uuid: bool(one.holders) for uuid, one in crate.known.items()} == {
            "GPU-a": True, "MIG-0": True, "MIG-1": False,
        }  # fmt: skip


def test_a_host_without_cards_sees_those_of_others_and_watches_them(shared):
    with crate(shared, 0, plugins=[Cards()]) as client, lockkit.gpu.pool(client).acquire(timeout=30):
        pass
    with crate(shared) as client, lockkit.gpu.pool(client).acquire(timeout=30):
        pass
    shared.env |= {"LOCKKIT_GPU_SIMULATE": "0", "LD_LIBRARY_PATH": "/nowhere"}
    done = shared("gpu", "ls", "--all-hosts")
    assert (done.returncode, "no live readings of this host, box: " in done.stdout) == (0, True)
    assert "1 host; 2 GPUs: 2 not held" in done.stdout
    process = shared.start("gpu", "ls", "--all-hosts", "--watch", "--interval", "50ms", "--json")
    assert json.loads(process.stdout.readline())["hosts"][0]["gpus"][0]["state"] == "unheld"
    with crate(shared, 0, plugins=[Cards()]) as client, lockkit.gpu.pool(client).acquire(timeout=30):
        while json.loads(process.stdout.readline())["hosts"][0]["gpus"][0]["state"] != "held":
            pass
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=40) == 0


def test_who_tries_simulated_cards_keeps_nobody_from_a_real_one_and_is_not_listed_with_them(shared):
    with crate(shared) as trying, crate(shared, 0, plugins=[Cards()]) as real:
        with (
            lockkit.gpu.pool(trying).acquire(2, timeout=30),
            lockkit.gpu.pool(real).acquire(2, timeout=30) as leases,
        ):
            assert leases.valid()
        assert [one.host for one in fleet(real).hosts] == ["crate"]
        assert [one.host for one in fleet(real, root=SIMULATED_ROOT).hosts] == [CRATE]


def test_a_store_that_nobody_has_used_for_cards(lockkit):
    lockkit.env |= {"LOCKKIT_GPU_HOST": "box", "LD_LIBRARY_PATH": "/nowhere"}
    done = lockkit("gpu", "ls", "--all-hosts")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "no host has used GPUs with this store")


def test_a_narrow_terminal_names_the_host_of_each_card():
    card = by_store(Device("GPU-1f3a", -1, "", None), NOTHING_KNOWN, 0.0)
    for width in (30, 59, 80, 160):
        console = Console(width=width, file=io.StringIO())
        console.print(table_of([card], width, ["crate"]))
        told = console.file.getvalue()
        assert max(map(len, told.splitlines())) <= width
        assert "crate" in told
        assert "not held" in told


@pytest.fixture
def client():
    with connect(f"memory://{os.urandom(8).hex()}") as client:
        yield client


def test_lists_of_hosts_and_cards_keep_what_has_room(client):
    for number in range(300):
        enlist(client, f"host-{number:03}.example.org", [f"GPU-{number}"])
    hosts = [one.host for one in fleet(client).hosts]
    assert hosts[-1] == "host-299.example.org"
    assert 100 < len(hosts) < 300
    enlist(client, "host-299.example.org", ["GPU-299"])
    assert client.record(pool_name(ROOT, "host-299.example.org")).version == 1


def test_a_list_that_another_program_wrote_hides_no_card(client):
    client.put_record(pool_name(ROOT), {"hosts": 7, "other": 1}, 0)
    client.put_record(pool_name(ROOT, "box"), {"cards": [7, "GPU-a"]}, 0)
    client.put_record(
        pool_name("gpu/box", "GPU-a"),
        {"about": {"index": "x", "name": 3, "parent": []}, "capacity": "much"},
        0,
    )
    enlist(client, "box", ["GPU-b"])
    (box,) = fleet(client).hosts
    assert [(one.uuid, one.index, one.memory) for one in box.devices] == [
        ("GPU-a", -1, None),
        ("GPU-b", -1, None),
    ]
    assert client.record(pool_name(ROOT)).value == {"hosts": ["box"], "other": 1}


def test_a_list_that_cannot_be_written_keeps_nobody_from_a_card(client, monkeypatch):
    write = client.put_record

    def refuse(name, value, version):
        if name.startswith(pool_name(ROOT) + "/") or name == pool_name(ROOT):
            raise BackendUnavailable("no")
        return write(name, value, version)

    monkeypatch.setattr(client, "put_record", refuse)
    (card, _) = SimulatedProvider(2).snapshot().devices
    assert capacities(client, "gpu/box", [card]) == {card.uuid: 24064}


@pytest.mark.parametrize("bad", ["\x1b[2Jevil\x07", "n\nl", "x" * 600, "x" * 501, "", "gpu\x00z", "\x7f"])
def test_a_name_that_no_lock_can_have_is_left_out_of_the_list_of_hosts_with_a_remark(client, bad):
    client.put_record(pool_name(ROOT), {"hosts": ["box", bad]}, 0)
    client.put_record(pool_name(ROOT, "box"), {"cards": ["GPU-a", bad]}, 0)
    client.put_record(pool_name("gpu/box"), {"quarantine": {bad: {"why": "x"}, "GPU-b": {}}}, 0)
    seen = fleet(client)
    (box,) = seen.hosts
    assert [one.uuid for one in box.devices] == ["GPU-a", "GPU-b"]
    assert list(seen.remarks) == [
        "1 host left out: the record of '@pool/gpu' has names that no lock can have",
        "1 card left out: a record of the host box has names that no lock can have",
    ]


def test_the_list_of_all_hosts_tells_of_names_that_were_left_out(lockkit):
    lockkit.env |= {"LOCKKIT_GPU_SIMULATE": "1", "LOCKKIT_URL": f"sqlite:{lockkit.folder}/locks.db"}
    with connect(lockkit.env["LOCKKIT_URL"], state_dir=str(lockkit.folder / "crate")) as client:
        client.put_record(pool_name(SIMULATED_ROOT), {"hosts": ["\x1b[2J", "crate"]}, 0)
        client.put_record(pool_name(SIMULATED_ROOT, "crate"), {"cards": ["GPU-a"]}, 0)
        client.put_record(
            pool_name("gpu-sim/crate", "GPU-a"),
            {"about": {"index": 10**400}, "capacity": 10**400, "receipt": {"outcome": "dirty", "at": 1e300}},
            0,
        )
    done = lockkit("gpu", "ls", "--all-hosts")
    assert (done.returncode, "1 host left out" in done.stdout + done.stderr) == (0, True)
    assert "\x1b" not in done.stdout + done.stderr
    found = check(lockkit.json("gpu", "ls", "--all-hosts"))
    assert any("1 host left out" in remark for remark in found["remarks"])
