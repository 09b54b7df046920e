"""A locked task whose arguments are pydantic's models."""

from __future__ import annotations

import pytest

pytest.importorskip("pydantic")

import pydantic

from lockkit.integrations.celery import LockedTask


class Order(pydantic.BaseModel):
    id: int


def test_the_lock_is_named_from_the_arguments_as_they_were_sent(app, deliver):
    @app.task(bind=True, base=LockedTask, lock="order:{order[id]}", pydantic=True)
    def work(self, order: Order) -> str:
        assert isinstance(order, Order)
        return self.lease.name

    assert deliver(work, {"id": 7}).retval == "order:7"
