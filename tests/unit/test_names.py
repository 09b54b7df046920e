import hashlib
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockkit.errors import ConfigError
from lockkit.values import names


@pytest.mark.parametrize(
    "name", ["a", "a/b", "{a}", "..", ".", "%2E", "a b", "gpu:0", "ä", "x" * 512, "é" * 256, "*", "~"]
)
def test_hostile_but_honest_names_are_allowed(name):
    assert names.check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "x" * 513, "é" * 257, "a\0b", "a\nb", "\x7f", "\ud800", None, 1, b"a", ["a"]]
)
def test_names_that_no_store_could_keep_are_refused(name):
    with pytest.raises(ConfigError):
        names.check_name(name)


@pytest.mark.parametrize("namespace", ["default", "prod", "A.b_c-9", "0", "x" * 64])
def test_namespaces(namespace):
    assert names.check_namespace(namespace) == namespace


@pytest.mark.parametrize("namespace", ["", ".a", "-a", "a/b", "a b", "x" * 65, "ä", "a\n", None, 3])
def test_namespaces_refused(namespace):
    with pytest.raises(ConfigError, match="not a namespace"):
        names.check_namespace(namespace)


def test_nfc_and_nfd_are_different_names():
    composed, decomposed = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    assert names.encode(composed) != names.encode(decomposed)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_encoding_is_reversible_and_stays_inside_one_path_segment(name):
    stored = names.encode(name)
    assert names.decode(stored) == name
    assert stored.isascii()
    assert not set(stored) & set("/.{}*?: \0")


@given(st.text(alphabet="a./%{}2EeF", max_size=12), st.text(alphabet="a./%{}2EeF", max_size=12))
def test_different_names_never_meet(one, other):
    assert (names.encode(one) == names.encode(other)) == (one == other)


def test_tokens_are_128_bits_and_never_the_same():
    tokens = {names.new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(len(token) == 32 and int(token, 16) >= 0 for token in tokens)


def test_a_claim_id_is_the_beginning_of_the_tokens_hash():
    token = names.new_token()
    assert names.claim_id(token) == hashlib.sha256(token.encode()).hexdigest()[:12]
    assert names.claim_id(token) not in token
