"""The record of a card, put into words."""

from __future__ import annotations

from lockkit.cli.traces import Traces, sentences
from lockkit.facts import Record
from lockkit.gpu.card_records import record_words
from lockkit.gpu.devices import Device
from lockkit.gpu.enlisting import ABOUT, described
from lockkit.gpu.judging import Receipt
from lockkit.gpu.receipts import packed
from lockkit.notes.records import CAPACITY
from lockkit.values.sizes import GIB

NAME = "@pool/gpu%2Fbox/GPU-a"
CARD = Device("GPU-a", 3, "NVIDIA L4", 24 * GIB, 0, 0, 0, ())
LEFT = Receipt("GPU-a", "clean", 0, fence=5, by="ann@box", at=1000.0)
VALUE = {ABOUT: described(CARD), CAPACITY: 24064, "receipt": packed(LEFT)}


def words(name=NAME, **more):
    return record_words(name, Record(name, {**VALUE, **more}, 1, 1000.0))


def test_model_capacity_and_the_last_receipt_are_told():
    assert words() == "GPU 3 (NVIDIA L4), 23.5 GiB for its holders, left clean by ann@box"


def test_a_record_of_something_else_is_not_put_into_words():
    assert words("backup") == words("@pool/gpu%2Fbox") == words("@pool/cards/0") == ""


def test_a_free_card_is_explained_without_json():
    told = sentences(Traces([], Record(NAME, VALUE, 1, 1000.0)), 1060.0)
    assert any("GPU 3 (NVIDIA L4)" in each for each in told)
    assert "{" not in "".join(told)
