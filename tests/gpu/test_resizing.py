"""A resize of a card, and claims for all of it that come meanwhile."""

from __future__ import annotations

import os

import pytest

import lockkit
import lockkit.gpu
from lockkit.gpu import requests
from lockkit.gpu.card_chooser import CardChooser
from support.cards import CARD, QUEUE, play_resize_and_whole_card


@pytest.mark.parametrize("beside", [True, False], ids=["sharers", "nobody"])
@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_a_whole_card_that_a_resize_did_not_see_is_given_back(tmp_path, monkeypatch, store, beside):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    url = f"memory://{os.urandom(8).hex()}" if store == "memory" else f"sqlite:{tmp_path}/locks.db"
    play_resize_and_whole_card(url, monkeypatch, beside=beside)


def test_a_resize_that_is_taken_back_costs_the_request_for_the_whole_card_nothing_but_time(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    judge, told = CardChooser.judge, []

    with lockkit.connect(f"memory://{os.urandom(8).hex()}") as client:
        cards = lockkit.gpu.pool(client, simulate=1)
        cards.acquire(timeout=30).release()
        record = client.record(QUEUE)
        before = record.value["capacity"]

        def resized(self, member):
            """Judge while an operator has written the record and not yet seen the claim."""
            if told:
                return judge(self, member)
            now = client.record(QUEUE)
            now = client.put_record(QUEUE, {**now.value, "capacity": before + 1000}, now.version)
            told.append(judge(self, member))
            client.put_record(QUEUE, {**now.value, "capacity": before}, now.version)
            return told[0]

        monkeypatch.setattr(CardChooser, "judge", resized)
        monkeypatch.setattr(requests.CardChooser, "every", 0.05)
        with cards.acquire(timeout=30) as leases:
            assert leases.members == (CARD,)
            assert leases[0].terms.weight == before
    assert told == ["it was resized just now"]
