"""The page on SQLite names every option of a URL with its values, and every check."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockkit.store.spi import OpenOptions, Refused
from lockkit_sqlite.backend import open_store
from lockkit_sqlite.place import OPTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "backends" / "sqlite.md").read_text(encoding="utf-8")


def test_every_option_of_a_url_is_there_with_its_values():
    for option, values in OPTIONS.items():
        (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{option}` |"))
        assert all(f"`{value}`" in row for value in values)


@pytest.mark.parametrize("mode", [0o1777, 0o777, 0o770])
def test_the_folders_that_it_calls_refused_are(tmp_path, mode):
    tmp_path.chmod(mode)

    with pytest.raises(Refused):
        open_store(f"sqlite:{tmp_path}/locks.db", OpenOptions())


def test_a_folder_of_a_group_is_made_as_it_says(tmp_path):
    assert "mkdir -m 2770" in PAGE
    tmp_path.chmod(0o2770)

    store = open_store(f"sqlite:{tmp_path}/locks.db", OpenOptions())

    assert (tmp_path / "locks.db").stat().st_mode & 0o777 == 0o660
    store.close()
