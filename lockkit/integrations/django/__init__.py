"""Locks for Django: management commands that run one at a time, and a client for views. Extra: ``django``.

INSTALLED_APPS = [..., "lockkit.integrations.django"]
LOCKKIT = {"url": "redis://cache", "scope": "fleet"}

class Command(LockedCommand):
    on_busy, min_hold = "skip", 1800
    def handle(self, *args, **options): ...
"""

from __future__ import annotations

from lockkit.integrations.django.clients import client
from lockkit.integrations.django.locked_command import LockedCommand

__all__ = ["LockedCommand", "client"]
