"""Sizes as people write them, and as they are shown."""

from __future__ import annotations

import pytest

from lockkit import sizes
from lockkit.errors import ConfigError


@pytest.mark.parametrize(
    "text, size",
    [
        ("20GiB", 20 << 30),
        ("20 gib", 20 << 30),
        ("1.5GiB", 3 << 29),
        ("512MiB", 512 << 20),
        ("8GB", 8_000_000_000),
        ("1TiB", 1 << 40),
        ("4096", 4096),
        (4096, 4096),
    ],
)
def test_a_size_is_bytes(text, size):
    assert sizes.parse(text, what="x") == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GiB",
        "20G i B",
        "20 bananas",
        "-1GiB",
        "1e9",
        "1.5",
        "nan",
        True,
        1.5,
        None,
        "99999TiB",
        "0",
        0,
        -1,
    ],
)
def test_anything_else_is_refused_with_what_to_write(text):
    with pytest.raises(ConfigError, match=r"^min_free must be"):
        sizes.parse(text, what="min_free")


def test_zero_is_a_size_where_it_may_be():
    assert sizes.parse("0", what="x", zero=True) == sizes.parse("0 GiB", what="x", zero=True) == 0


@pytest.mark.parametrize(
    "size, shown",
    [
        (0, "0 MiB"),
        (612 << 20, "612 MiB"),
        ((1 << 30) - 1, "1 GiB"),
        (1 << 30, "1 GiB"),
        (3 << 29, "1.5 GiB"),
        (80 << 30, "80 GiB"),
        (85_520_809_984, "79.6 GiB"),
        (141 << 30, "141 GiB"),
        (3 << 40, "3 TiB"),
    ],
)
def test_a_size_is_shown_in_one_unit(size, shown):
    assert sizes.show(size) == shown
