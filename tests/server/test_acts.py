"""Each change acts on what its sender saw, and is on record before it is made."""

from __future__ import annotations

import json

import lockkit
from lockkit.observe import journal
from lockkit.server import make_app

from .conftest import Site


def records(client):
    """The audit records, each with its outcome."""
    folder = client.config.state_place().path
    lines = journal.read(folder, file="serve.jsonl")
    outcomes = {one["of"]: one["outcome"] for one in lines if "of" in one}
    return [{**one, "outcome": outcomes.get(one["id"])} for one in lines if "of" not in one]


def test_a_claim_is_evicted_with_who_and_why(site, client):
    lease = client.lock("x").acquire()

    answer = site.post(
        "/api/evict", {"name": "x", "claim_id": lease.claim_id, "reason": "hung"}, token="operate"
    )

    assert answer.status == 200
    assert answer.json["schema"] == "lockkit.evict/1"
    assert answer.json["outcome"] == "MARKED"
    assert answer.json["reason"] == "hung (operateer)"
    assert client.inspect("x").claims[0].evicted
    (record,) = records(client)
    assert (
        record.items()
        >= {
            "action": "evict",
            "by": "operateer",
            "scope": "operate",
            "from": "127.0.0.1",
            "name": "x",
            "claim": lease.claim_id,
            "reason": "hung",
            "outcome": "marked",
        }.items()
    )
    lease.release()


def test_the_successor_of_a_claim_that_was_seen_is_left_alone(site, client):
    lease = client.lock("x").acquire()
    seen = lease.claim_id
    lease.release()
    successor = client.lock("x").acquire()

    for path in ("/api/evict", "/api/ask-release"):
        answer = site.post(path, {"name": "x", "claim_id": seen, "reason": "hung"})
        assert answer.status == 409
        assert answer.json["holder"]["claim_id"] == successor.claim_id

    successor.confirm()
    assert not client.inspect("x").claims[0].evicted
    assert not client.inspect("x").claims[0].release_requests
    successor.release()


def test_a_holder_is_asked_by_name(site, client):
    lease = client.lock("a/b").acquire()

    answer = site.post(
        "/api/ask-release", {"name": "a/b", "claim_id": lease.claim_id, "reason": "needed"}, token="operate"
    )

    assert answer.status == 200
    assert answer.json["request"]["reason"] == "needed (operateer)"
    assert client.inspect("a/b").claims[0].release_requests[0].reason == "needed (operateer)"
    lease.release()


def test_to_evict_at_once_takes_the_scope_admin(site, client):
    lease = client.lock("x").acquire()
    body = {"name": "x", "claim_id": lease.claim_id, "reason": "hung", "now": True}

    assert site.post("/api/evict", body, token="operate").status == 403
    assert client.inspect("x").claims != ()
    assert site.post("/api/evict", body, token="admin").json["outcome"] == "REMOVED"
    assert client.inspect("x").claims == ()
    lease.release()


def test_without_a_record_nothing_is_done(site, client):
    lease = client.lock("x").acquire()
    (client.config.state_place().path / "serve.jsonl").mkdir()

    answer = site.post("/api/evict", {"name": "x", "claim_id": lease.claim_id, "reason": "hung"})

    assert (answer.status, answer.json["error"]) == (507, "no_audit")
    assert not client.inspect("x").claims[0].evicted
    lease.release()


def test_what_was_changed_is_seen_in_the_next_look(site, client):
    lease = client.lock("x").acquire()
    assert site.get("/api/locks").json["locks"][0]["holders"][0]["evicted"] is False

    site.post("/api/evict", {"name": "x", "claim_id": lease.claim_id, "reason": "hung"})

    assert site.get("/api/locks").json["locks"][0]["holders"][0]["evicted"] is True
    lease.release()


def test_the_records_can_be_read_only_by_their_owner(site, client):
    site.post("/api/evict", {"name": "x", "claim_id": "0" * 12, "reason": "hung"})

    file = client.config.state_place().path / "serve.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "admin" * 8 not in json.dumps(records(client))


def test_a_gpu_is_quarantined_by_the_bearer_of_the_token(tmp_path, serving, token_file):
    with lockkit.connect(
        f"sqlite:{tmp_path}/g.db", gpu_simulate=2, gpu_host="box", state_dir=str(tmp_path / "state")
    ) as client:
        application = make_app([client], token_file=str(token_file))
        site = Site(client, application, serving(application))
        seen = site.get("/api/gpus").json
        uuid, host = seen["gpus"][1]["uuid"], seen["host"]
        path = f"/api/gpus/{uuid}/quarantine"

        elsewhere = site.post(path, {"host": "other", "reason": "Xid 79"})
        unknown = site.post("/api/gpus/GPU-nobody/quarantine", {"host": host, "reason": "Xid 79"})
        done = site.post(path, {"host": host, "reason": "Xid 79"})
        again = site.post(path, {"host": host, "reason": "another reason"})
        after = site.get("/api/gpus").json["gpus"][1]

    assert [one.status for one in (elsewhere, unknown, done, again)] == [409, 404, 200, 409]
    assert done.json["quarantine"]["by"].startswith("adminer@")
    assert after["state"] == "quarantined"
    assert after["quarantine"]["reason"] == "Xid 79"


def test_what_an_eviction_would_do_is_told_before_it_is_done(site, client):
    lease = client.lock("x").acquire(reason="nightly")
    seen = f"/api/consequences?name=x&claim_id={lease.claim_id}"

    told = site.get(f"{seen}&act=evict", token="view").json
    at_once = site.get(f"{seen}&act=evict&now=true", token="view").json["sentences"]
    asked = site.get(f"{seen}&act=ask-release", token="view").json["sentences"]

    question, whose, *_ = told["sentences"]
    assert question == f"Evict claim {lease.claim_id} of 'x'?"
    assert whose.endswith("for: nightly.")
    assert f"Its fence {lease.fence} stays its own" in " ".join(told["sentences"])
    assert told["claim"]["claim_id"] == lease.claim_id
    assert "two may work at once" in " ".join(at_once)
    assert "Nothing is forced" in " ".join(asked)
    assert not client.inspect("x").claims[0].evicted
    lease.release()


def test_nothing_is_told_of_what_can_no_longer_be_done(site, client):
    lease = client.lock("x").acquire()
    lease.release()

    gone = site.get(f"/api/consequences?name=x&claim_id={lease.claim_id}&act=evict")

    assert gone.status == 409
    assert gone.json["error"] == "absent"
