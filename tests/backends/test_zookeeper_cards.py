"""Cards on ZooKeeper: a holder that goes wrong in a layer of its release (S4, S7, L1), and a resize that a claim for a whole card overtakes."""

from __future__ import annotations

import pytest

from support.cards import LAYERS, play_layer, play_resize_and_whole_card
from support.servers.zookeeper import ZooKeeperServer


@pytest.fixture(scope="module")
def server():
    with ZooKeeperServer() as server:
        yield server


@pytest.fixture
def url(server, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("LOCKKIT_NAMESPACE", tmp_path.name)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return f"{server.url()}?tick={server.tick}"


@pytest.mark.parametrize("layer, how, outcome", LAYERS)
def test_a_holder_that_goes_wrong_in_a_layer_of_its_release_blocks_for_its_ttl_at_most(
    url, layer, how, outcome
):
    play_layer(url, layer, how, outcome, 1.5)


@pytest.mark.parametrize("beside", [True, False], ids=["sharers", "nobody"])
def test_a_whole_card_that_a_resize_did_not_see_is_given_back(url, monkeypatch, beside):
    play_resize_and_whole_card(url, monkeypatch, beside=beside)
