"""Lock names of any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lockkit
from lockkit import ConfigError, safe_name
from lockkit.values.names import check_name

TEXTS = st.one_of(
    st.text(max_size=600),
    st.text(alphabet=st.characters(), max_size=40),  # with surrogates
    st.builds("{}~{}".format, st.text(max_size=5), st.text("0123456789abcdef", min_size=63, max_size=65)),
    st.text(max_size=5).map("@pool/{}".format),
)


@pytest.mark.parametrize("text", ["a", "gpu:0", "a/b c", "é" * 256, "x~", "~" + "0" * 63])
def test_a_text_that_may_be_a_name_stays_as_it_is(text):
    assert safe_name(text) == text


@pytest.mark.parametrize("text", ["", "x" * 513, "a\nb", "\ud800", "@pool/gpus", "a~" + "0" * 64], ids=ascii)
def test_other_texts_become_names_that_can_be_locked(text):
    with lockkit.connect("memory://safe-names") as client, client.lock(safe_name(text)).acquire() as lease:
        assert lease.name != text


def test_a_long_text_has_the_same_name_in_all_versions_and_shows_its_beginning():
    name = safe_name("https://example.org/" + "a" * 600)

    assert (
        name
        == "https://example.org/"
        + "a" * 76
        + "~eee641db9e2b2190332bb83534e27c0b8da17af2f9e75a0c19caeff8e84a8952"
    )


@given(TEXTS)
def test_every_text_has_a_name(text):
    assert check_name(safe_name(text))


@given(TEXTS, TEXTS)
def test_different_texts_have_different_names(one, other):
    assert (safe_name(one) == safe_name(other)) == (one == other)


@given(TEXTS)
def test_the_name_of_a_text_is_the_name_of_no_other(text):
    name = safe_name(text)

    assert name == text or safe_name(name) != name


@pytest.mark.parametrize("key", [None, 7, b"a", ["a"]])
def test_only_texts_have_names(key):
    with pytest.raises(ConfigError, match="takes a str"):
        safe_name(key)
