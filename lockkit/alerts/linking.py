"""Links from notifications to the page of ``lockkit serve``, if the configuration has its public address."""

from __future__ import annotations

from urllib.parse import urlencode

from lockkit.alerts.notification import Notification

__all__ = ["address", "linked"]


def address(public_url: str | None, **query: str) -> str:
    """The address of the page's alerts, with the store and the alert; empty without a public address."""
    if public_url is None:
        return ""
    return f"{public_url.rstrip('/')}/#/alerts{f'?{urlencode(query)}' if query else ''}"


def linked(notification: Notification, public_url: str | None, store: str) -> Notification:
    """The notification with a link to each of its alerts.

    Args:
        notification: The notification.
        public_url: The setting ``serve.public_url``.
        store: The id of the store on the page.
    """
    return notification._replace(
        members=tuple(
            one._replace(link=address(public_url, store=store, alert=one.fingerprint))
            for one in notification.members
        )
    )
