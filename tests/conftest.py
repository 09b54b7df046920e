"""Hypothesis profiles. Each failure prints a line that repeats it: `@reproduce_failure(...)`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Real stores answer when they answer: pytest-timeout guards against hanging, so no deadline per example.
settings.register_profile(
    "lockkit",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly",
    settings.get_profile("lockkit"),
    max_examples=5_000,
    stateful_step_count=100,
)
settings.load_profile("lockkit")
