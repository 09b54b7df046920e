"""The past as JSON documents have it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lockkit.values.durations import rfc3339
from lockkit.views import documents, parts
from lockkit.views.making import hold, made_of

if TYPE_CHECKING:
    from lockkit.observe.past import History

__all__ = ["document"]


def document(history: History) -> documents.History:
    """The document of ``lockkit history``: all that was read, each list in the order of time."""
    return documents.History(
        files=list(history.files),
        first=rfc3339(history.first),
        holds=documents.Each(hold, history.holds),
        waits=documents.Each(partial(made_of, parts.PastWait), history.waits),
        happenings=documents.Each(partial(made_of, parts.Happening), history.happenings),
        unbegun=history.unbegun,
        gaps=made_of(parts.Gaps, history.gaps),
    )
