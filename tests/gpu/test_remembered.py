"""A user's last cards: found by the next program; a damaged or unwritable file of them does no harm."""

from __future__ import annotations

import asyncio
import json
import os
import stat

import pytest

import lockkit
import lockkit.aio
import lockkit.gpu
import lockkit.gpu.aio
from lockkit.gpu.remembered import FILE, last_cards, remember
from lockkit.gpu.simulated import SimulatedProvider

CARDS = [card.uuid for card in SimulatedProvider(3).snapshot().devices]


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with lockkit.connect(f"memory://{os.urandom(8).hex()}") as client:
        yield client


def had(client, **how):
    with lockkit.gpu.pool(client, simulate=3).acquire(timeout=5, **how) as leases:
        return leases.members


def test_another_pool_of_this_user_prefers_the_cards_that_the_first_one_had(client):
    assert had(client, ids=["2"]) == (CARDS[2],)
    assert had(client) == (CARDS[2],)
    assert had(client, affinity=False) == (CARDS[0],)
    assert had(client) == (CARDS[0],)


def test_a_pool_under_asyncio_remembers_too(client):
    async def main():
        async with (
            lockkit.aio.connect(f"memory://{os.urandom(8).hex()}") as aio,
            lockkit.gpu.aio.pool(aio, simulate=3).acquire(ids=["1"], timeout=30),
        ):
            pass

    asyncio.run(main())
    assert had(client) == (CARDS[1],)


def test_each_host_has_cards_of_its_own_and_only_the_latest_are_kept(client):
    for number in range(40):
        remember(client.config, f"gpu/box{number}", [f"GPU-{number}"])
    assert last_cards(client.config, "gpu/box39") == ("GPU-39",)
    assert last_cards(client.config, "gpu/box8") == ("GPU-8",)
    assert last_cards(client.config, "gpu/box7") == ()


def test_the_same_cards_as_last_time_are_not_written_again(client, tmp_path):
    file = tmp_path / "state" / FILE
    remember(client.config, "gpu/box", CARDS)
    written = file.stat().st_ino
    remember(client.config, "gpu/box", CARDS)
    assert file.stat().st_ino == written
    remember(client.config, "gpu/crate", CARDS)
    remember(client.config, "gpu/box", CARDS)
    assert list(json.loads(file.read_bytes())) == ["gpu/crate", "gpu/box"]


def test_the_file_is_for_its_user_alone_and_nothing_else_is_left(client, tmp_path):
    before = os.umask(0)
    try:
        remember(client.config, "gpu/box", CARDS)
    finally:
        os.umask(before)
    (file,) = (tmp_path / "state").iterdir()
    assert (file.name, stat.S_IMODE(file.stat().st_mode)) == (FILE, 0o600)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"gpu/box": 7}', '{"gpu/box": [7]}', " " * 70_000 + "{}", "[" * 60_000]
)
def test_a_damaged_file_says_nothing_and_is_replaced(client, tmp_path, text):
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / FILE).write_text(text)
    assert last_cards(client.config, "gpu/box") == ()
    remember(client.config, "gpu/box", ["GPU-1"])
    assert last_cards(client.config, "gpu/box") == ("GPU-1",)


def test_a_folder_that_cannot_be_used_stops_no_job(client, tmp_path):
    (tmp_path / "state").write_text("no folder")
    remember(client.config, "gpu/box", ["GPU-1"])
    assert last_cards(client.config, "gpu/box") == ()


def test_a_card_that_this_host_no_longer_has_is_preferred_by_nobody(client, tmp_path):
    pool = lockkit.gpu.pool(client, simulate=3)
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / FILE).write_text(json.dumps({pool.name: ["GPU-gone", CARDS[1]]}))
    assert had(client) == (CARDS[1],)
