"""A busy task whose message has a pickled body, in an application whose own serializer cannot carry it."""

from __future__ import annotations

from support.celery.stage import PATIENCE

APP = "support.celery.fleet"


def test_it_is_sent_again_as_it_came(rig):
    environ = {"TEST_QUEUE": "pickled", "ACCEPT": "json pickle", "C_FORCE_ROOT": "1"}
    worker = rig.worker(APP, environ=environ, concurrency=1)
    words = {"queue": "pickled", "serializer": "pickle"}
    with rig.client().lock("carried").acquire().detach():
        sent = rig.sender().send_task("fleet.carry", ("carried", {7}), **words)
        worker.until_logged("waits for 'carried'")
    assert sent.get(timeout=PATIENCE) == "carried {7}"
    assert worker.words.count("waits for 'carried'") < 5, "it was sent again without a pause"
