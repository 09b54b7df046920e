"""A view that charges an account, one request at a time over all workers and pods."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path

import lockkit
from lockkit.integrations.django import client


def charge(request: HttpRequest, account: str) -> HttpResponse:  # noqa: ARG001
    try:
        with client().lock(f"account:{account}").acquire(timeout=5) as lease:
            return HttpResponse(f"charged {account} with fence {lease.fence}")
    except lockkit.AcquireTimeout:
        return HttpResponse("busy, try again", status=503)


urlpatterns = [path("charge/<account>", charge)]
