"""The map of GPUs in docs/architecture.md, and its figures about the size of the stores, which say what is larger than planned and why."""

from __future__ import annotations

import re

import pytest

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
