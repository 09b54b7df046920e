"""lockkit store adopt-folder: an embedded store that was moved or restored without its lock file."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def moved(tmp_path, lockkit):
    """The URL of a database that lost its lock file, with a lock in it."""
    folder = tmp_path / "moved"
    folder.mkdir(mode=0o700)
    url = f"sqlite:{folder}/locks.db"
    assert lockkit("acquire", "x", "--ttl", "1h", "--url", url).returncode == 0
    (folder / "locks.db-lock").unlink()
    return url


def test_a_moved_store_is_refused_with_the_command_that_takes_it_in(lockkit, moved):
    refused = lockkit("status", "--url", moved)
    assert refused.returncode == 69
    assert "lockkit store adopt-folder" in refused.stderr

    done = lockkit("store", "adopt-folder", "--url", moved)

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{moved.removeprefix('sqlite:')} can be used now\n"
    assert "x" in lockkit("status", "--url", moved).stdout


def test_json_names_the_database(lockkit, moved):
    done = lockkit("store", "adopt-folder", "--json", "--url", moved)
    document = json.loads(done.stdout)
    assert document["schema"] == "lockkit.store-adopt-folder/1"
    assert document["database"] == moved.removeprefix("sqlite:")
    assert document["store"]["url"] == moved


def test_a_store_without_a_folder_is_refused(lockkit):
    refused = lockkit("store", "adopt-folder", "--url", "redis://localhost:1")
    assert refused.returncode == 78
    assert "only an embedded store can be moved" in refused.stderr
