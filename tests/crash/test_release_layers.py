"""A card's holder fails in a layer of its release: what is left (S4, S7, L1), and what its successor sees."""

from __future__ import annotations

import pytest

from support.cards import LAYERS, play_layer


@pytest.mark.parametrize("layer, how, outcome", LAYERS)
def test_a_holder_that_goes_wrong_in_a_layer_of_its_release_blocks_for_its_ttl_at_most_and_is_told_of(
    tmp_path, monkeypatch, layer, how, outcome
):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    play_layer(f"sqlite:{tmp_path}/locks.db", layer, how, outcome, 1.5)
