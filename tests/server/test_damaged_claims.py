"""The page's JSON and ``lockkit gpu`` with claims and records into which others have written."""

from __future__ import annotations

import sqlite3

import pytest

from lockkit import gpu
from lockkit.cli import exits
from lockkit.cli.main import run

WRITTEN = (
    "{bad", "\x00", "[" * 3000, "[1,2]",
    '{"owner": {"pid": "../x", "host": 7, "user": ["a"], "started": "x"}, "kind": 3, "v": 1e400}',
    '{"owner": {"pid": 1' + "0" * 30
    + ', "user": "\\u001b[2J\\u0000", "host": "\\ud800", "program": "<script>", "pod": {}}}',
    ('{"lockkit": {"gpu": {"used": "x", "idle": []}, "asked": 7, "reason": {"a": 1}}, '
    '"pool": {"count": "x"}, "adopted": {"pid": "x", "started": []}}'),
    ('{"pool": {"count": 1e400}, "adopted": 5, "progress": [1], "quarantine": 3, "capacity": [], '
    '"cards": "x", "receipts": {"a": 5}, "enlisted": [1]}'),
    ('{"pool": [], "adopted": {"pid": 1, "user": "\\ud800"}, "gpu": {"cards": {"x": 1}}, '
    '"quarantine": {"x": 4, "\\u0000": {"why": []}}}'),
)  # fmt: skip
PATHS = (
    "/api/stores", "/api/locks", "/api/locks?name=%2A", "/api/lock?name=a", "/api/gpus", "/api/failures",
    "/api/alerts", "/api/history", "/metrics", "/",
)  # fmt: skip
LINES = (
    "gpu ls",
    "gpu ls --json",
    "status",
    "status --json",
    "recover",
    "doctor",
    "run --gpu 1 --no-wait -- true",
)


@pytest.mark.parametrize("text", WRITTEN, ids=range(len(WRITTEN)))
@pytest.mark.parametrize("table", ["entries", "records"])
def test_nothing_that_a_claim_or_record_contains_blanks_the_page(
    table, text, tmp_path, monkeypatch, capsys, client, site
):
    for name, value in {
        "HOME": tmp_path,
        "LOCKKIT_STATE_DIR": tmp_path,
        "LOCKKIT_GPU_SIMULATE": 2,
        "LOCKKIT_GPU_HOST": "box",
    }.items():
        monkeypatch.setenv(name, str(value))
    with (
        client.lock("a").acquire(20.0),
        gpu.pool(client, simulate=2, host="box").acquire(count=1, timeout=20.0),
    ):
        db = sqlite3.connect(tmp_path / "locks.db", isolation_level=None)
        if table == "entries":
            db.execute("UPDATE entries SET info = ?1, note = ?1 WHERE namespace <> ''", (text,))
        else:
            assert db.execute("UPDATE records SET value = ?1", (text,)).rowcount
        for path in PATHS:
            answer = site.get(path)
            assert answer.status < 500
            assert "\x00" not in answer.text
        for line in LINES:
            words = line.split()
            at = words.index("--") if "--" in words else len(words)
            code = run([*words[:at], "--url", f"sqlite:{tmp_path}/locks.db", *words[at:]])
            told = capsys.readouterr()
            blocked = table == "records" and line.startswith(
                "run"
            )  # a damaged record may have said that nobody gets a card
            assert code in ((exits.OK, exits.BUSY) if blocked else (exits.OK, exits.FAILED)), (line, told.err)
            assert "Traceback" not in told.err
        db.close()
