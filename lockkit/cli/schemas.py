"""The published JSON Schemas (2020-12) of the documents that the command line prints.

They are made from the structs that the commands print (:mod:`lockkit.cli.documents`,
:mod:`lockkit.views.documents`, :mod:`lockkit.testing.bench.figures`). ``python -m lockkit.cli.docs`` writes
them to docs/schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lockkit.cli import documents as of_commands
from lockkit.testing.bench.figures import Bench
from lockkit.views import documents as of_both
from lockkit.views.components import schema_components

__all__ = ["SCHEMAS"]


def _schema(document: type[msgspec.Struct]) -> dict[str, Any]:
    parts = schema_components([document], ref_template="#/$defs/{name}")
    whole = parts.pop(document.__name__)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **whole,
        "title": document.__struct_config__.tag,
        "$defs": parts,
    }


_DOCUMENTS: list[type[msgspec.Struct]] = [
    *(
        each
        for module in (of_commands, of_both)
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, of_both.Document)
        and str(each.__struct_config__.tag).startswith("lockkit.")
    ),
    Bench,
]

SCHEMAS: Mapping[str, dict[str, Any]] = {
    str(document.__struct_config__.tag).removeprefix("lockkit.").removesuffix("/1"): _schema(document)
    for document in sorted(_DOCUMENTS, key=lambda each: str(each.__struct_config__.tag))
}
"""The schemas, by the names of the documents: ``status`` for ``lockkit.status/1``."""
