"""Cards named as in ``gpu ls``: explain, evict, ask-release, wait and status with such a word."""

from __future__ import annotations

import os
import re

import pytest

from lockkit import connect
from lockkit.gpu import pool as gpu_pool


@pytest.fixture
def held(lockkit):
    """The lease of the first of two simulated cards."""
    lockkit.env["LOCKKIT_GPU_SIMULATE"] = "2"
    state = lockkit.folder / "state"
    with (
        connect(f"sqlite:{state}/lockkit.db", gpu_simulate=2, state_dir=str(state)) as client,
        gpu_pool(client).acquire(ids=["0"]) as leases,
    ):
        yield leases[0]


@pytest.mark.parametrize("cut", [12, 40])
def test_the_beginning_of_a_uuid_is_explained_as_its_card(lockkit, held, cut):
    word = held.name.rpartition("/")[2][:cut]
    told = lockkit("explain", word).stdout
    assert f"No lock called '{word}' is in use, so this is about GPU 0 of this host." in told
    assert f"'{held.name}' is held by" in told
    assert f"claim {held.claim_id}" in told
    assert "nobody holds it" not in told
    assert "No similar name" not in told
    assert lockkit.json("explain", word)["lock"]["name"] == held.name


def test_an_index_is_only_a_hint(lockkit, held):
    meant = f"id you mean GPU 0, {held.name}? It is held by "
    for word in ("0", "gpu:0"):
        told = lockkit("explain", word).stdout
        assert f"'{word}' is free" in told
        assert meant in told
        assert f": lockkit explain {held.name}" in told
        assert "No similar name" not in told
        assert meant in lockkit("status", word).stdout
        assert meant in lockkit("wait", word).stderr
    assert "GPU 1, @pool/gpu-sim" in (told := lockkit("explain", "1").stdout)
    assert "It is free: lockkit explain" in told
    assert "did you mean the GPUs of this host" in lockkit("explain", "7").stdout.replace("Did", "did")


@pytest.mark.parametrize("cut", [12, 40])
def test_a_holder_of_a_card_is_asked_by_the_uuid_of_the_card(lockkit, held, cut):
    word = held.name.rpartition("/")[2][:cut]
    done = lockkit("ask-release", word, "--claim", held.claim_id, "--reason", "it is idle")
    assert (done.returncode, f"is asked to release {held.name!r}" in done.stdout) == (0, True), done.stderr
    held.ensure_held()
    assert lockkit("ask-release", word, "--claim", "0" * 12, "--reason", "x").returncode == 1
    assert lockkit("evict", word, "--claim", held.claim_id, "--reason", "it is idle").returncode == 0


def test_a_card_is_explained_in_terms_of_cards(lockkit, held):
    word = held.name.rpartition("/")[2]
    told = lockkit("explain", word).stdout
    assert f"is the lock of {word}, a GPU of the host " in told
    assert "23.5 GiB of 23.5 GiB are taken." in told
    assert not re.search("permits|pool '", told), told


def test_a_command_about_a_claim_of_a_card_says_which_lock_was_meant(lockkit, held):
    for command in ("evict", "ask-release"):
        done = lockkit(command, "0", "--claim", held.claim_id, "--reason", "x")
        assert done.returncode == 1
        assert f"did you mean GPU 0, {held.name}? It is held by " in done.stderr
        assert f"pid {os.getpid()}" in done.stderr
    held.ensure_held()


def test_evict_names_the_claims_that_hold_and_takes_none_by_its_beginning(lockkit, held):
    done = lockkit("evict", held.name, "--claim", held.claim_id[:4], "--reason", "x")
    assert done.returncode == 1
    assert f"held now by: {held.claim_id} (" in done.stderr
    held.ensure_held()


def test_a_member_of_another_hosts_pool_is_a_similar_name(lockkit):
    with connect(f"sqlite:{lockkit.folder}/state/lockkit.db") as client:
        uuid = "GPU-54a033e8-8d3c-4f5e-9a2b-000000000000"
        with client.pool("gpu/far", [uuid]).acquire():
            told = lockkit("explain", uuid[:12]).stdout
    assert f"A similar name is in use: lockkit explain @pool/gpu%2Ffar/{uuid}" in told
