"""Options that cannot work are refused when the task is made, and the error says what to change."""

from __future__ import annotations

import pytest
from celery import Task, shared_task

from lockkit.errors import ConfigError
from lockkit.integrations.celery import LockedTask, locked_task
from lockkit.integrations.celery.misspelt import check_names

WRONG = [
    ({}, "needs to know what to lock", 'lock="invoice:'),
    ({"lock": "a", "gpu": 1}, "lock and gpu are given together", "give one of them"),
    ({"lock": "invoice:{number}"}, "has no argument 'number'", "its arguments: invoice_id, rest"),
    ({"lock": "invoice:{"}, "not a name template", ""),
    ({"lock": "invoice:{rest}"}, "have no order", "name each that matters: {rest[...]}"),
    ({"lock": "a\n"}, "control characters", ""),
    ({"lock": 7}, "must be the name of a lock", ""),
    (
        {"lock": "a", "on_busy": "Retry"},
        "on_busy must be one of retry | skip | wait | fail",
        "did you mean 'retry'?",
    ),
    ({"lock": "a", "on_unavailable": "ignore"}, "on_unavailable must be one of", ""),
    ({"lock": "a", "on_duplicate": "fail"}, "on_duplicate must be one of", ""),
    ({"lock": "a", "ttl": 0}, "ttl must be more than 0", ""),
    ({"lock": "a", "ttl": "30s"}, "ttl must be a number of seconds", "ttl=30"),
    ({"lock": "a", "max_wait": -1}, "max_wait must be more than 0", ""),
    ({"lock": "a", "on_busy": "skip", "max_wait": 5}, "never waits", "leave out max_wait"),
    ({"lock": "a", "permits": 2}, "needs a capacity", "capacity=4"),
    ({"lock": "a", "capacity": 2, "permits": 3}, "can never fit", ""),
    ({"lock": "a", "count": 2}, "count is for pool=", "leave out count"),
    ({"pool": "p", "capacity": 2}, "capacity is for lock=", "leave out capacity"),
    ({"pool": "p", "count": 0}, "count must be a whole number", ""),
    ({"gpu": 0}, "gpu must be a whole number", ""),
    ({"gpu": 1, "gpu_mem": "8 apples"}, "gpu_mem", ""),
    ({"gpu": 1, "on_unavailable": "run"}, "is not for gpu=", 'on_unavailable="retry"'),
    ({"pool": "p", "on_unavailable": "run"}, "is not for pool=", 'on_unavailable="retry"'),
    ({"lock": "a", "fence_as": "fence"}, "no keyword argument 'fence'", "fence=0"),
    ({"lock": "a", "fence_as": "invoice_id"}, "needs a default", "invoice_id=0"),
    ({"lock": "a", "capacity": 2, "fence_as": "fence"}, "several runs hold at once", "leave out fence_as"),
    ({"pool": "p", "members": ["a"], "fence_as": "fence"}, "fence_as is for a plain lock", "leave out"),
    ({"lock": "a", "capacity": 2, "on_duplicate": "skip"}, "several runs hold at once", "leave out on_dup"),
    ({"gpu": 1, "on_duplicate": "skip"}, "on_duplicate is for a plain lock", "leave out on_duplicate"),
    ({"lock": "a", "onbusy": "skip"}, "no option 'onbusy'", "did you mean 'on_busy'?"),
    ({"pool": "p", "members": []}, "must be different names", "members="),
    ({"pool": "p", "members": ["a", "a"]}, "must be different names", "members="),
    ({"pool": "p", "members": "ab"}, "a list of names", ""),
    ({"pool": "p", "members": {"a": 0}}, "the capacity of member 'a' must be a whole number", ""),
    ({"pool": "p", "members": ["a"], "count": 2}, "has only 1 member, so a request for 2", "ask for less"),
    ({"pool": "p", "members": {"a": 8}, "each": 9}, "has only 0 members with room for 9", "ask for less"),
    ({"pool": "p", "each": 0}, "each must be a whole number", ""),
    ({"lock": "a", "min_hold": 100, "max_hold": 50}, "max_hold (50 s) must not be below min_hold", ""),
    (
        {"lock": "a", "max_hold": 10, "time_limit": 20},
        "time_limit of 20 s, above its max_hold",
        "raise max_hold",
    ),
    (
        {"lock": "a", "max_hold": 10, "soft_time_limit": 11},
        "soft_time_limit of 11 s, above",
        "raise max_hold",
    ),
]


@pytest.mark.parametrize("options, told, hint", WRONG)
def test_a_task_that_cannot_work_is_refused_when_celery_makes_it(app, options, told, hint):
    @app.task(base=LockedTask, name="proj.bill", **options)
    def bill(invoice_id, **rest): ...

    with pytest.raises(ConfigError) as refused:
        app.finalize()

    assert "proj.bill: " in str(refused.value) or "task proj.bill" in str(refused.value)
    assert told in str(refused.value)
    assert hint in str(refused.value)


@pytest.mark.parametrize("options, told, hint", WRONG[:-2])
def test_the_decorator_of_lockkit_refuses_it_at_once(app, options, told, hint):
    with pytest.raises(ConfigError) as refused:

        @locked_task(app, **options)
        def bill(invoice_id, **rest): ...

    assert told in str(refused.value)
    assert hint in str(refused.value)


def test_the_decorator_of_lockkit_makes_the_task_that_app_task_makes(app, deliver):
    @locked_task(app, bind=True, lock="a:{number}", on_busy="skip", acks_late=True, name="proj.work")
    def work(self, number):
        return self.lease.name

    assert work.name == "proj.work"
    assert work.acks_late is True
    assert deliver(work, 7).retval == "a:7"


def test_without_an_application_the_task_is_shared(app):
    app.set_current()

    @locked_task(lock="a", name="proj.shared")
    def work(): ...

    @shared_task(base=LockedTask, lock="b", name="proj.shared_too")
    def other(): ...

    assert app.tasks["proj.shared"].lock == "a"
    assert app.tasks["proj.shared_too"].lock == "b"


@pytest.mark.parametrize("given", [lambda: None, "proj"])
def test_the_decorator_needs_an_application_or_none(given):
    with pytest.raises(ConfigError, match="needs parentheses"):
        locked_task(given)


def test_functions_whose_work_would_run_later_are_refused(app):
    def generate():
        yield

    async def wait(): ...

    for function, told in ((generate, "generator function"), (wait, "coroutine function")):
        with pytest.raises(ConfigError, match=told):
            locked_task(app, lock="a")(function)


def test_a_bound_task_without_an_argument_for_itself_is_refused(app):
    with pytest.raises(ConfigError, match="no argument for the task"):

        @locked_task(app, bind=True, lock="a")
        def work(): ...


def test_the_name_of_a_lock_is_not_made_from_the_task_itself(app):
    with pytest.raises(ConfigError, match="has no argument 'self'"):

        @locked_task(app, bind=True, lock="{self}")
        def work(self): ...


def test_an_abstract_base_need_not_say_what_to_lock_and_its_options_are_inherited(app, deliver):
    class Billing(LockedTask):
        abstract = True
        on_busy = "skip"
        ttl = 20

    @app.task(bind=True, base=Billing, lock="invoice:{invoice_id}")
    def bill(self, invoice_id):
        return self.lease.ttl

    assert deliver(bill, 7).retval == 20
    assert bill.lock_options.on_busy == "skip"

    with pytest.raises(ConfigError, match="on_busy must be one of"):

        class Wrong(LockedTask):
            on_busy = "sometimes"


def test_a_class_may_be_a_task(app, deliver):
    class Bill(LockedTask):
        name = "proj.Bill"
        lock = "invoice:{invoice_id}"
        counter = 0  # an attribute of its own, however much it looks like an option

        def run(self, invoice_id):
            return self.lease.name

    bill = app.register_task(Bill())
    assert deliver(bill, 7).retval == "invoice:7"

    with pytest.raises(ConfigError, match="has no argument 'number'"):

        class Wrong(LockedTask):
            lock = "invoice:{number}"

            def run(self, invoice_id): ...


def test_options_that_the_configuration_changes_are_checked_too(app):
    app.conf.task_annotations = {"proj.work": {"on_busy": "someday"}}

    @app.task(base=LockedTask, lock="a", name="proj.work")
    def work(): ...

    with pytest.raises(ConfigError, match="on_busy must be one of"):
        app.finalize()


def test_and_count_if_they_are_right(app):
    app.conf.task_annotations = {"proj.work": {"ttl": 45}}

    @app.task(base=LockedTask, lock="a", name="proj.work")
    def work(): ...

    assert work.lock_options.ttl == 45.0


@pytest.mark.parametrize(
    "broker, options, refused",
    [
        ("redis://h", {}, False),
        ("redis://h", {"visibility_timeout": 60}, True),
        ("rediss://h", {"visibility_timeout": 60}, True),
        ("sentinel://h;sentinel://i", {"visibility_timeout": 60}, True),
        ("amqp://h", {"visibility_timeout": 60}, False),
    ],
)
def test_a_ttl_above_the_visibility_timeout_is_refused(app, broker, options, refused):
    app.conf.broker_url, app.conf.broker_transport_options = broker, options

    @app.task(base=LockedTask, lock="a", ttl=90)
    def work(): ...

    if not refused:
        assert work.lock_options.ttl == 90.0
        return
    with pytest.raises(ConfigError, match="above the broker's visibility timeout of 60 s"):
        app.finalize()


@pytest.mark.parametrize(
    "name, meant",
    [
        *[(name, "ttl") for name in ("tll", "tt", "ttll", "tlt", "ttk", "expiry", "lock_timeout")],
        *[(name, "on_busy") for name in ("on_bsy", "on_bsuy", "onbusy", "no_busy", "on_buzzy", "busy")],
        *[(name, "max_wait") for name in ("timeout", "wait", "max_wwait", "maxwait", "max_waits")],
        *[(name, "lock") for name in ("lokc", "locks", "lokk", "olck", "lock_name")],
        *[(name, "gpu") for name in ("gpus", "gup", "gpuu")],
        *[(name, "pool") for name in ("pol", "pools", "poool")],
        *[(name, "members") for name in ("member", "memmberz", "mambres")],
        ("fence", "fence_as"),
        ("semaphore", "capacity"),
        ("capacitys", "capacity"),
        ("permit", "permits"),
        ("max_hodl", "max_hold"),
        ("on_duplicates", "on_duplicate"),
        ("gpu_memory", "gpu_mem"),
        ("blocking", 'on_busy="wait"'),
        ("once", 'lock="bill:{invoice_id}", on_busy="skip"'),
        ("unique_on", 'lock="bill:{invoice_id}", on_busy="skip"'),
        ("raise_on_duplicate", 'on_busy="fail"'),
        ("lock_expiry", "ttl"),
    ],
)
def test_a_name_that_is_meant_for_an_option_is_refused(app, name, meant):
    with pytest.raises(ConfigError) as refused:
        locked_task(app, **{"lock": "a", name: 3})(lambda: None)

    assert f"has no option {name!r}" in str(refused.value)
    assert f"did you mean {meant!r}?" in str(refused.value)


def test_options_of_celery_and_attributes_of_ones_own_are_accepted(app):
    of_celery = {name for name in dir(Task) if not name.startswith("_")}
    of_messages = (
        "queue",
        "routing_key",
        "exchange",
        "priority",
        "expires",
        "serializer",
        "delivery_mode",
        "compression",
    )
    of_celery |= {
        *of_messages,
        "time_limit",
        "soft_time_limit",
        "immediate",
        "mandatory",
        "shared",
        "lazy",
        "filter",
        "name",
    }
    own = {
        "cpu",
        "owner",
        "customer",
        "team",
        "host",
        "retries",
        "unit",
        "limit",
        "url",
        "tag",
        "key",
    }

    check_names("proj.work", of_celery | own, ())


def test_a_base_class_may_have_an_attribute_of_such_a_name(app):
    class Fetching(LockedTask):
        abstract = True
        timeout = 5

    @locked_task(app, base=Fetching, lock="a", timeout=7, name="proj.fetch")
    def work(): ...

    assert work.timeout == 7
    assert work.max_wait is None
