"""Signing in: the page exchanges a token for a cookie, because an EventSource cannot send headers."""

from __future__ import annotations

import time

from starlette.responses import Response

from lockkit.server.answers import answer
from lockkit.server.calls import Call
from lockkit.server.documents import SignedIn
from lockkit.server.problems import HttpProblem
from lockkit.server.tokens import SESSION_SECONDS

__all__ = ["sign_in", "sign_out"]


def sign_in(call: Call) -> Response:
    """Set a cookie for the bearer of a token. No script can read it, no other site's page can send it."""
    assert call.tokens is not None
    token = call.body.token.strip()
    visitor = call.tokens.visitor(token)
    cookie = call.tokens.session(token, time.time())
    if visitor is None or cookie is None:
        raise HttpProblem(401, "wrong_token", "the token is not known")
    made = answer(SignedIn(visitor=visitor.name, scope=visitor.scope))
    made.set_cookie(
        call.cookie,
        cookie,
        max_age=int(SESSION_SECONDS),
        path=call.root or "/",
        secure=call.sender.secure,
        httponly=True,
        samesite="strict",
    )
    return made


def sign_out(call: Call) -> Response:
    """Remove the cookie."""
    made = answer(SignedIn(visitor=None, scope=None))
    made.delete_cookie(
        call.cookie, path=call.root or "/", secure=call.sender.secure, httponly=True, samesite="strict"
    )
    return made
