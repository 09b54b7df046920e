"""The declared capabilities. The scope depends on the folder: a group shares it, or one user owns it."""

from __future__ import annotations

from lockkit.facts import Capabilities

__all__ = ["CAPABILITIES", "SHARED"]

CAPABILITIES = Capabilities(
    scope="user", process_bound=True, drains=True, fence="clock", min_ttl=0.1, waiter_deadline=0.0
)
"""In a folder of one user's own."""
SHARED = CAPABILITIES._replace(scope="host")
"""In a folder that a group shares."""
