"""DingTalk's custom robot (https://open.dingtalk.com/document/robots/custom-robot-access): a group chat.

DingTalk answers 200 even if it refuses a message; this sink reads ``errcode`` in the answer, which says so.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from urllib.parse import quote_plus

from lockkit.alerts.notification import Notification
from lockkit.alerts.outcomes import NotDelivered
from lockkit.alerts.sinks.posting import post
from lockkit.alerts.wording import as_markdown, subject_markdown

__all__ = ["ENDPOINT", "DingTalk", "message", "signature"]

ENDPOINT = "https://oapi.dingtalk.com/robot/send"
"""The address of the service."""
_TOO_FAST = (130101, 410100, 660026)
"""DingTalk's codes for too many messages: more than 20 a minute stop a robot for 10 minutes."""
_PAUSE = 60.0
_MOST_BYTES = 18_000


class DingTalk:
    """The sink.

    Args:
        token: Returns the access token of the robot; called for each message.
        sign: Returns the secret by which messages are signed; None if the robot has none.
        endpoint: The address.
        timeout: Seconds that an attempt may take.
        ca_file: A file with the certificates to trust instead of the system's.
        wall: Returns the time in seconds of the wall clock, for the signature.
    """

    def __init__(
        self,
        token: Callable[[], str],
        sign: Callable[[], str] | None = None,
        endpoint: str = ENDPOINT,
        *,
        timeout: float = 10.0,
        ca_file: str = "",
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.secrets: tuple[str, ...] = ()
        self._token = token
        self._sign = sign
        self._endpoint = endpoint
        self._timeout = timeout
        self._ca_file = ca_file
        self._wall = wall

    def __call__(self, notification: Notification) -> None:
        token = self._token()
        secret = None if self._sign is None else self._sign()
        self.secrets = (token,) if secret is None else (token, secret)
        url = f"{self._endpoint}?access_token={quote_plus(token)}"
        if secret is not None:
            stamp = round(self._wall() * 1000)
            url += f"&timestamp={stamp}&sign={quote_plus(signature(secret, stamp))}"
        answer = post(
            url, message(notification), timeout=self._timeout, ca_file=self._ca_file, accepted=(200,)
        )
        try:
            told = json.loads(answer.content)
            code, why = told["errcode"], told.get("errmsg", "")
        except (ValueError, TypeError, KeyError):
            raise NotDelivered("DingTalk's answer is none: is the address right?") from None
        if code != 0:
            raise NotDelivered(
                f"DingTalk refused the message: {code} {why}",
                retry_after=_PAUSE if code in _TOO_FAST else None,
            )


def signature(secret: str, stamp: int) -> str:
    """The signature of a message: HMAC-SHA256 over the time in milliseconds and the secret, in base 64."""
    code = hmac.new(secret.encode(), f"{stamp}\n{secret}".encode(), hashlib.sha256)
    return base64.b64encode(code.digest()).decode()


def message(notification: Notification) -> dict[str, object]:
    """The message in DingTalk's format. The text repeats the title, which only lists of chats show."""
    title = subject_markdown(notification)
    text = f"### {title}\n\n{as_markdown(notification)}"
    cut = text.encode()[:_MOST_BYTES].decode(errors="ignore")
    return {"msgtype": "markdown", "markdown": {"title": title, "text": cut}}
