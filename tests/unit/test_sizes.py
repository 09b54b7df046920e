"""Sizes as people write them, and as they are shown."""

from __future__ import annotations

import pytest

from lockkit.errors import ConfigError
from lockkit.values import sizes


@pytest.mark.parametrize(
    "text, size",
    [
        ("20GiB", 20 << 30),
        ("20 gib", 20 << 30),
        ("1.5GiB", 3 << 29),
        ("512MiB", 512 << 20),
        ("8GB", 8 << 30),
        ("8G", 8 << 30),
        ("8g", 8 << 30),
        ("8 gb", 8 << 30),
        ("512M", 512 << 20),
        ("2T", 2 << 40),
        ("4096b", 4096),
        ("1TiB", 1 << 40),
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


@pytest.mark.parametrize("text, meant", [("8", "8GiB"), (" 20 ", "20GiB"), ("1.5", "1.5GiB")])
def test_a_text_without_a_unit_is_refused_with_the_size_that_was_probably_meant(text, meant):
    with pytest.raises(ConfigError, match="must be a size with a unit") as refused:
        sizes.parse(text, what="min_free")
    assert refused.value.hint == f"did you mean {meant}"


@pytest.mark.parametrize("text", ["4096", str(8 << 30)])
def test_a_text_of_many_bytes_is_refused_without_a_guess(text):
    with pytest.raises(ConfigError) as refused:
        sizes.parse(text, what="min_free")
    assert refused.value.hint == "write 20GiB or 512MiB"


def test_fewer_bytes_than_the_least_are_taken_for_a_forgotten_unit():
    with pytest.raises(ConfigError, match=r"^memory must be at least 1 MiB, not 8 bytes") as refused:
        sizes.parse(8, what="memory", least=sizes.MIB)
    assert refused.value.hint == "did you mean 8GiB"
    with pytest.raises(ConfigError, match=r"^memory must be at least 1 MiB, not '512KiB'"):
        sizes.parse("512KiB", what="memory", least=sizes.MIB)
    assert sizes.parse(sizes.MIB, what="memory", least=sizes.MIB) == sizes.MIB
    assert sizes.parse(0, what="memory", least=sizes.MIB, zero=True) == 0


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
