"""A real holder is stopped between its check and its write, for longer than its ttl, and then goes on."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import lockkit
from lockkit.testing.processes import until

HOLDER = """
import os, signal, sqlite3, sys
import lockkit

class Connection(sqlite3.Connection):
    stops = False

    def cursor(self):
        if self.stops:
            self.stops = False
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().cursor()

db = sqlite3.connect(sys.argv[1], factory=Connection)
with lockkit.connect(ttl=3.0) as client:
    lease = client.lock("counter").acquire(timeout=40)
    if sys.argv[2] == "guarded":
        guarded = lockkit.guard.sql(db, "counters", key={"id": 1}).open(lease)
        number = guarded.read()["number"]
        write = lambda: guarded.write({"number": number + 1})
    else:
        (number,) = db.execute("SELECT number FROM counters").fetchone()
        def write():
            lease.ensure_held()
            cursor = db.cursor()
            cursor.execute(f"UPDATE counters SET number = {number + 1}")
            db.commit()
    db.stops = True
    try:
        write()
        print("written")
    except lockkit.StaleFence:
        print("stale")
    lease.release()
"""


@pytest.mark.parametrize("way, answer, lost", [("unguarded", "written", 1), ("guarded", "stale", 0)])
def test_a_holder_that_was_stopped_writes_over_its_successor_unless_a_guard_stops_it(
    tmp_path, monkeypatch, way, answer, lost
):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path / "state"))
    file = tmp_path / "app.db"
    with closing(sqlite3.connect(file)) as db, lockkit.connect() as client:
        db.execute("CREATE TABLE counters (id INTEGER PRIMARY KEY, number INTEGER, fence BIGINT)")
        db.execute("INSERT INTO counters VALUES (1, 0, NULL)")
        db.commit()
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, file, way], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        try:
            until(
                lambda: "\nState:\tT" in Path(f"/proc/{holder.pid}/status").read_text(), "it is stopped", 40
            )

            with client.lock("counter").acquire(timeout=30) as lease:
                guarded = lockkit.guard.sql(db, "counters", key={"id": 1}).open(lease)
                guarded.write({"number": guarded.read()["number"] + 1})
                holder.send_signal(signal.SIGCONT)
                told, _ = holder.communicate(timeout=30)
        finally:
            holder.kill()
            holder.communicate()
        (number,) = db.execute("SELECT number FROM counters").fetchone()

    assert told == f"{answer}\n"
    written = 1 + (told == "written\n")
    assert written - number == lost
