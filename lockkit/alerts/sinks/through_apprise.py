"""Apprise (https://github.com/caronc/apprise): e-mail, Slack, a webhook and a hundred others, each by a URL.

The channel's thread imports it for the first notification, unless :meth:`Apprise.prepare` did, and may sleep.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lockkit.alerts.notification import Notification
from lockkit.alerts.outcomes import NotDelivered, parts_of, veil
from lockkit.alerts.sinks.posting import OBJECTIONS
from lockkit.alerts.wording import as_html, as_markdown, as_text, subject, subject_markdown

__all__ = ["Apprise", "understood"]

_FORMS = {"text": as_text, "markdown": as_markdown, "html": as_html}
_LOGGERS = ("apprise", "urllib3.connectionpool")
"""The loggers that write URLs at DEBUG level."""
_NO_PICTURES: dict[str, Any] = {"image_url_mask": "", "image_url_logo": "", "image_path_mask": ""}


class Apprise:
    """The sink.

    Args:
        url: Returns the URL, a secret; called for each notification.
        timeout: Seconds for connecting, and for each answer, unless the URL has its own ``cto`` and ``rto``.
        form: ``text``, ``markdown`` or ``html``; empty for what the service likes best.
    """

    def __init__(self, url: Callable[[], str], *, timeout: float = 10.0, form: str = "") -> None:
        self.secrets: tuple[str, ...] = ()
        self._url = url
        self._timeout = timeout
        self._form = form

    def prepare(self) -> None:
        """Import apprise and its services, seconds on a busy machine. The first delivery reports errors."""
        with suppress(Exception):
            understood(self._url())

    def __call__(self, notification: Notification) -> None:
        url = self._url()
        self.secrets = parts_of(url)
        apprise = _apprise()
        with _listening(self.secrets) as heard:
            # On this thread, not on one shared by all channels, which the interpreter awaits when it exits.
            asset = apprise.AppriseAsset(
                async_mode=False,
                service_timeout=0,
                app_id="lockkit",
                app_desc="lockkit alerts",
                app_url="",
                **_NO_PICTURES,
            )
            service = _service(apprise, url, asset)
            service.redirects = False  # else another service may get the secrets, and answers for this one
            if "cto=" not in url:
                service.socket_connect_timeout = self._timeout
            if "rto=" not in url:
                service.socket_read_timeout = self._timeout
            form = self._form or _best(service)
            title = subject_markdown(notification) if form == "markdown" else subject(notification)
            sender = apprise.Apprise(asset=asset)
            sender.add(service)
            taken = sender.notify(
                _FORMS[form](notification), title=title, notify_type=_kind(notification), body_format=form
            )
        if not taken:
            why = heard[-1] if heard else "no reason given"
            found = re.search(r"\berror=(\d+)", why)
            code = int(found[1]) if found is not None else 0
            if 300 <= code < 400:
                why += " This is a redirect, which is not followed; set the address to which it leads."
            raise NotDelivered(f"apprise could not deliver it: {why}", rejected=code in OBJECTIONS)


def understood(url: str) -> None:
    """Check that apprise is installed and understands a URL. Nothing is sent.

    Raises:
        NotDelivered: Otherwise.
    """
    apprise = _apprise()
    with _listening(parts_of(url)):
        _service(apprise, url, None)


def _apprise() -> Any:
    try:
        import apprise
    except ImportError:
        raise NotDelivered("apprise is not installed: pip install 'lockkit[alerts]'") from None
    return apprise


def _service(apprise: Any, url: str, asset: Any) -> Any:
    service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if service is None:
        raise NotDelivered("apprise does not understand the URL; try it with: apprise -t test URL")
    return service


def _best(service: Any) -> str:
    """The form that a service likes best: Markdown if it takes text and Markdown, as DingTalk does."""
    given = service.notify_format
    formats = [
        str(getattr(each, "value", each)) for each in (given if isinstance(given, tuple) else (given,))
    ]
    if set(formats) == {"text", "markdown"}:
        return "markdown"
    return formats[0] if formats[0] in _FORMS else "text"


def _kind(notification: Notification) -> str:
    if notification.reason == "all_resolved":
        return "success"
    return "warning" if notification.severity == "P2" else "failure"


class _Listener(logging.Handler):
    """Keeps what apprise says on one thread."""

    def __init__(self, secrets: tuple[str, ...], heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self._secrets = secrets
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._heard.append(veil(record.getMessage(), self._secrets))


class _Veil(logging.Filter):
    """Removes secrets from log lines of one thread."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread == self._thread:
            record.msg, record.args = veil(record.getMessage(), self._secrets), ()
        return True


@contextmanager
def _listening(secrets: tuple[str, ...]) -> Iterator[list[str]]:
    heard: list[str] = []
    listener, filtered = _Listener(secrets, heard), _Veil(secrets)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(filtered)
    loggers[0].addHandler(listener)
    try:
        yield heard
    finally:
        loggers[0].removeHandler(listener)
        for logger in loggers:
            logger.removeFilter(filtered)
