"""docs/architecture.md: ways through the code, the map of GPUs, and reasons for large stores."""

from __future__ import annotations

import asyncio
import re
import sys
import threading

import pytest

import lockkit
from lockkit.cli.main import run
from lockkit.server import make_app

PLANNED = {
    "lockkit_memory": 550,
    "lockkit_sqlite": 2200,
    "lockkit_redis": 3200,
    "lockkit_zookeeper": 3400,
    "lockkit_etcd": 3900,
    "lockkit_etcd3": 1100,
}
"""Lines of Python, comments included."""


def lines(path):
    return len(path.read_text().splitlines())


@pytest.fixture(scope="module")
def rows(pages):
    """For each store on the page: the lines that were planned, those of today, and why."""
    found = re.findall(
        r"^\| `(lockkit_\w+)` \| ([\d,]+) lines[^|]*\| ([\d,]+) lines[^|]*\| (.*) \|$",
        pages["docs/architecture.md"],
        re.MULTILINE,
    )
    return {
        name: (int(plan.replace(",", "")), int(now.replace(",", "")), why) for name, plan, now, why in found
    }


@pytest.mark.parametrize("store", PLANNED)
def test_a_store_that_is_larger_than_planned_says_so_and_why(root, rows, store):
    size = sum(lines(path) for path in (root / "backends" / store).glob("*.py"))

    if size <= PLANNED[store]:
        assert store not in rows
        return
    planned, now, _ = rows[store]
    assert planned == PLANNED[store]
    assert now == pytest.approx(size, rel=0.03)


def test_the_files_that_make_it_larger_are_as_large_as_the_page_says(root, rows):
    checked = 0
    for store, (_, _, why) in rows.items():
        for names, told in re.findall(r"\(((?:`\w+\.py`(?:, )?)+): (\d+)\b", why):
            size = sum(lines(root / "backends" / store / name) for name in re.findall(r"`(\w+\.py)`", names))
            assert int(told) == pytest.approx(size, rel=0.1), names
            checked += 1

    assert checked >= 6


def test_the_map_of_gpus_has_each_file_and_folder_once(root, pages):
    table = (
        pages["docs/architecture.md"]
        .partition("\n## GPUs\n")[2]
        .partition("\n## ")[0]
        .partition("\n| step |")[2]
    )
    there = {path.name for path in (root / "lockkit/gpu").glob("*.py")} - {"__init__.py"}
    there |= {f"{path.parent.name}/" for path in (root / "lockkit/gpu").glob("*/__init__.py")}

    told = re.findall(r"`(\w+\.py|\w+/)`", table.partition("\n|---|---|\n")[2])

    assert sorted(told) == sorted(there)


def entered(call):
    """The functions of lockkit that are entered while something is called, in order, with their files."""
    found = []

    def note(frame, event, _):
        if event == "call":
            found.append((frame.f_code.co_name, frame.f_code.co_filename))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


def way(pages, heading):
    """The functions in the figure under a heading, in order, with the file of each."""
    section = pages["docs/architecture.md"].partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^[ |'-]*(\w+)\(.*? (lockkit/\S+\.py)$", section, re.MULTILINE)


def follow(steps, found):
    """Assert that the steps are among the functions that were entered, in the same order."""
    assert len(steps) > 8
    rest = iter(found)
    for name, file in steps:
        assert any(one == name and path.endswith(file) for one, path in rest), (name, file)


def test_a_run_goes_the_way_of_the_figure(pages, tmp_path):
    options = [
        "run",
        "--url",
        f"sqlite:{tmp_path}/s.db",
        "a",
        "--report",
        str(tmp_path / "report"),
        "--",
        "true",
    ]

    follow(way(pages, "How `lockkit run` goes"), entered(lambda: run(options)))


def test_a_request_to_the_page_goes_the_way_of_the_figure(pages, tmp_path):
    token = "t" * 40
    (tmp_path / "tokens").write_text(f"me view {token}\n")
    (tmp_path / "tokens").chmod(0o600)
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": "/api/locks",
        "query_string": b"", "scheme": "http", "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {token}".encode())],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "http_version": "1.1",
    }  # fmt: skip
    with lockkit.connect(f"sqlite:{tmp_path}/s.db", state_dir=str(tmp_path)) as client:
        application = make_app([client], token_file=str(tmp_path / "tokens"))
        found = entered(lambda: asyncio.run(application(scope, receive, send)))

    assert sent[0]["status"] == 200
    follow(way(pages, "How a request to the page goes"), found)
