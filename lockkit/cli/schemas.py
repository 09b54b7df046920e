"""The published JSON Schemas (2020-12) of the documents that the command line prints.

They are made from the structs that are printed (:mod:`lockkit.cli.documents`); ``python -m lockkit.cli.docs`` writes them to docs/schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lockkit.cli.documents import Document

__all__ = ["SCHEMAS"]


def _schema(document: type[Document]) -> dict[str, Any]:
    _, parts = msgspec.json.schema_components([document], ref_template="#/$defs/{name}")
    whole = parts.pop(document.__name__)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **whole,
        "title": document.__struct_config__.tag,
        "$defs": parts,
    }


SCHEMAS: Mapping[str, dict[str, Any]] = {
    str(document.__struct_config__.tag).removeprefix("lockkit.").removesuffix("/1"): _schema(document)
    for document in sorted(Document.__subclasses__(), key=lambda each: str(each.__struct_config__.tag))
}
"""Schema by the document's name: ``status`` for ``lockkit.status/1``."""
