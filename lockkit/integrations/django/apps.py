"""The Django application, whose label is ``lockkit``: by the name of its package it would be ``django``."""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["LockkitConfig"]


class LockkitConfig(AppConfig):
    """The application with the command ``lockkit_run``, without models and middleware."""

    name = "lockkit.integrations.django"
    label = "lockkit"
    verbose_name = "lockkit"
