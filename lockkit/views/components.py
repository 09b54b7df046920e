"""The schemas of msgspec structs, in a form that does not depend on the versions of msgspec and Python."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec

__all__ = ["normalised", "schema_components"]


def schema_components(
    structs: Sequence[type[msgspec.Struct]], ref_template: str
) -> dict[str, dict[str, Any]]:
    """The schema of each struct, and of each that one of them refers to, by name."""
    _, parts = msgspec.json.schema_components(structs, ref_template=ref_template)
    return {name: normalised(part) for name, part in parts.items()}


def normalised(part: Any) -> Any:
    """The same schema, with descriptions not indented, and with null as the last alternative.

    Versions of msgspec differ in both, and versions of Python in the first.
    """
    if isinstance(part, list):
        return [normalised(each) for each in part]
    if not isinstance(part, dict):
        return part
    part = {key: normalised(value) for key, value in part.items()}
    if isinstance(part.get("description"), str):  # a property may have that name, too
        part["description"] = inspect.cleandoc(part["description"])
    if isinstance(part.get("anyOf"), list):
        part["anyOf"].sort(key=lambda each: each == {"type": "null"})
    return part
