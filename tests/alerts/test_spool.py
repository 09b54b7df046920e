"""The spool: what was taken is there after a crash, in order, and for its owner alone."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys

import pytest

from lockkit.alerts import spool
from lockkit.alerts.spool import Spool, decoded, encoded
from support.notifications import notification


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spool"


def told(found):
    return [kept.notification.group for kept in found]


def test_what_waits_is_there_after_a_restart_in_order(folder):
    first = Spool(folder, "mail")
    for number in range(3):
        first.add(notification(number))
    first.done([1], 50.0)
    first.close()

    second = Spool(folder, "mail")

    assert told(second.found) == ["emergency_rate 1", "emergency_rate 2"]
    assert second.found[0].notification == notification(1)
    assert second.sent == [50.0]
    second.close()


def test_what_was_taken_is_on_stable_storage(folder, monkeypatch):
    one = Spool(folder, "mail")
    synced, real = [], os.fsync

    def fsync(handle):
        real(handle)
        synced.append((os.fstat(handle).st_ino, os.fstat(handle).st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    one.add(notification())
    seen = one.path.stat()
    assert synced == [(seen.st_ino, seen.st_size)]
    one.close()


def test_a_third_process_finds_what_the_second_left(folder):
    for number in range(3):
        one = Spool(folder, "mail")
        one.add(notification(number))
        one.close()

    last = Spool(folder, "mail")
    assert told(last.found) == [f"emergency_rate {number}" for number in range(3)]
    last.close()


def test_nobody_else_may_read_it(folder):
    old = os.umask(0)
    try:
        one = Spool(folder, "mail")
        one.add(notification())
        one.done([1], 1.0)
    finally:
        os.umask(old)
    one.close()

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_line_that_a_crash_cut_is_skipped(folder):
    one = Spool(folder, "mail")
    one.add(notification(0))
    one.close()
    with (folder / "mail.jsonl").open("ab") as file:
        file.write(b'\n{"number": 2, "notification": {"gro')

    again = Spool(folder, "mail")
    assert (told(again.found), again.damaged) == (["emergency_rate 0"], 1)
    again.add(notification(3))
    again.close()
    last = Spool(folder, "mail")
    assert told(last.found) == ["emergency_rate 0", "emergency_rate 3"]
    last.close()


@pytest.mark.parametrize(
    "line",
    ["[]", "3", '{"number": 7, "notification": {"group": "g"}}', '{"done": 4}', '{"sent": "x"}', "\x00\x00"],
)
def test_nonsense_in_it_is_counted_and_nothing_else(folder, line):
    folder.mkdir(mode=0o700)
    good = json.dumps({"number": 1, "notification": encoded(notification(1))})
    (folder / "mail.jsonl").write_text(f"{line}\n{good}\n")

    one = Spool(folder, "mail")

    assert (told(one.found), one.damaged) == (["emergency_rate 1"], 1)
    one.close()


def test_two_processes_have_files_of_their_own_and_what_one_leaves_is_taken_over(folder):
    first, second = Spool(folder, "mail"), Spool(folder, "mail")
    assert first.path != second.path
    first.add(notification(0))
    second.add(notification(1))
    second.close()

    third = Spool(folder, "mail")  # while the first one still works
    assert told(third.found) == ["emergency_rate 1"]
    third.close()
    first.close()
    last = Spool(folder, "mail")
    assert told(last.found) == ["emergency_rate 0", "emergency_rate 1"]
    last.close()


def test_a_killed_process_leaves_what_it_took(folder):
    program = f"""
import os, signal
from pathlib import Path
from lockkit.alerts.spool import Spool
from support.notifications import notification
spool = Spool(Path({str(folder)!r}), "mail")
for number in range(20):
    spool.add(notification(number))
spool.done(range(1, 6), 1.0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", program], env=environ, timeout=60, check=False)
    assert ended.returncode == -9

    one = Spool(folder, "mail")
    assert told(one.found) == [f"emergency_rate {number}" for number in range(5, 20)]
    one.close()


def test_the_file_does_not_grow_for_ever(folder):
    one = Spool(folder, "mail")
    for _ in range(1000):
        one.done([one.add(notification(text="x" * 500)).number], 1.0)

    assert (folder / "mail.jsonl").stat().st_size < 3 * 65_536
    one.close()


def test_a_full_disk_is_told_and_leaves_nothing_half(folder, monkeypatch):
    one = Spool(folder, "mail")

    def full(_handle, _content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spool.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        one.add(notification(0))
    monkeypatch.undo()
    one.add(notification(1))
    one.close()

    again = Spool(folder, "mail")
    assert told(again.found) == ["emergency_rate 1"]
    again.close()


def test_a_link_in_the_place_of_the_file_is_not_followed(folder, tmp_path):
    folder.mkdir(mode=0o700)
    (folder / "mail.jsonl").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic"):
        Spool(folder, "mail")
    assert not (tmp_path / "elsewhere").exists()


def test_a_later_versions_keys_are_ignored():
    line = encoded(notification(4)) | {"colour": "red"}

    assert decoded(line) == notification(4)


@pytest.mark.parametrize("change", [{"severity": "P7"}, {"at": "now"}, {"members": 3}, {"reason": "why not"}])
def test_a_line_with_a_wrong_value_is_none(change):
    with pytest.raises(ValueError, match=r"Invalid|Expected"):
        decoded(encoded(notification()) | change)
