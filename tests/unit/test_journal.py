"""The journal of failed releases under several writers."""

from __future__ import annotations

import os
import stat

from lockkit.observe import journal
from lockkit.testing.children import Child

FULL = 600


def test_processes_that_find_the_journal_full_together_move_it_once(tmp_path, monkeypatch):
    """A second move would put a journal of a few records over the full one, and lose what that holds."""
    monkeypatch.setattr(journal, "_ROTATE_AT", FULL)
    moved = tmp_path / f"{journal.FILE}.1"

    def write(parent):
        parent.hear()
        for number in range(400):
            journal.append(tmp_path, {"name": f"n{number}"})
        return "done"

    writers = [Child(write) for _ in range(4)]
    sizes = set()
    for writer in writers:
        writer.tell()
    try:
        for writer in writers:
            while True:
                try:
                    assert writer.read(0.0) == "done"
                    break
                except TimeoutError:
                    if moved.exists():
                        sizes.add(moved.stat().st_size)
    finally:
        for writer in writers:
            writer.close()

    assert sizes, "it was never full"
    assert min(sizes) >= FULL


def test_a_full_journal_that_another_process_is_moving_still_takes_a_record(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "_ROTATE_AT", FULL)
    while not (path := tmp_path / journal.FILE).exists() or path.stat().st_size < FULL:
        journal.append(tmp_path, {})
    before = len(journal.read(tmp_path))

    def hold(parent):
        import fcntl

        with path.open("ab") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            parent.tell("held")
            parent.hear()

    other = Child(hold)
    assert other.hear() == "held"
    journal.append(tmp_path, {})
    assert len(journal.read(tmp_path)) == before + 1
    assert not path.with_name(f"{journal.FILE}.1").exists()
    other.tell()
    other.close()


def test_its_folder_and_file_are_for_their_owner_alone_whatever_the_umask(tmp_path):
    old = os.umask(0)
    try:
        journal.append(tmp_path / "a" / "b", {})
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"a": 0o700, "b": 0o700, journal.FILE: 0o600}
