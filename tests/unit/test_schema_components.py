"""Schemas are the same with every version of msgspec: these are the forms that its versions give."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockkit.views.components import normalised, schema_components

NULL = {"type": "null"}
OTHER = {"$ref": "#/$defs/Other"}


class Other(msgspec.Struct):
    """Said in one line.

    And in a second paragraph.
    """

    description: str


class Whole(msgspec.Struct):
    """A struct that refers to another."""

    other: Other | None


@pytest.mark.parametrize("text", ["One.\n\n    Two.", "One.\n\nTwo.", "One.\n\nTwo.\n"])
def test_a_description_has_no_indentation(text):
    assert normalised({"description": text}) == {"description": "One.\n\nTwo."}


@pytest.mark.parametrize("options", [[NULL, OTHER], [OTHER, NULL]])
def test_null_is_the_last_alternative(options):
    given: dict[str, Any] = {"properties": {"x": {"anyOf": options}}}
    assert normalised(given) == {"properties": {"x": {"anyOf": [OTHER, NULL]}}}


def test_the_schemas_of_structs_are_normalised():
    parts = schema_components([Whole], "#/$defs/{name}")
    assert parts["Other"]["description"] == "Said in one line.\n\nAnd in a second paragraph."
    assert parts["Other"]["properties"] == {"description": {"type": "string"}}
    assert parts["Whole"]["properties"]["other"]["anyOf"] == [OTHER, NULL]
