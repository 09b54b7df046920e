"""The setting ``metrics.enabled``: metrics for programs that do not ask for them themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

__all__ = ["with_metrics"]

_log = logging.getLogger("lockkit.metrics")


def with_metrics(plugins: Iterable[object]) -> Sequence[object]:
    """The plugins, with metrics among them; without prometheus_client, a WARNING says what to install."""
    given = list(plugins)
    try:
        from lockkit.observe.metrics import Metrics
    except ImportError as error:
        _log.warning(
            "metrics.enabled is set, but there are no metrics: %s; "
            "install them: pip install 'lockkit[metrics]'",
            error,
        )
        return given
    if any(isinstance(plugin, Metrics) for plugin in given):
        return given
    return [*given, Metrics()]
