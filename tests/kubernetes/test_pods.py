"""Owners are named as people of Kubernetes know them, and injected variables are taken for no setting."""

from __future__ import annotations

import json
import subprocess

import pytest

POD = {"POD_NAME": "worker-7d4f", "POD_NAMESPACE": "shop", "NODE_NAME": "node-3"}
INJECTED = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_PORT": "tcp://10.96.0.1:443",
    "LOCKKIT_SERVICE_HOST": "10.96.7.7",
    "LOCKKIT_SERVICE_PORT": "8712",
    "LOCKKIT_SERVICE_PORT_HTTP": "8712",
    "LOCKKIT_PORT": "tcp://10.96.7.7:8712",
    "LOCKKIT_PORT_8712_TCP": "tcp://10.96.7.7:8712",
    "LOCKKIT_PORT_8712_TCP_PROTO": "tcp",
    "LOCKKIT_PORT_8712_TCP_PORT": "8712",
    "LOCKKIT_PORT_8712_TCP_ADDR": "10.96.7.7",
    "LOCKKIT_URL_SERVICE_HOST": "10.96.7.8",
    "LOCKKIT_URL_PORT": "tcp://10.96.7.8:6379",
}
"""The variables of each pod beside Services called lockkit and lockkit-url."""


@pytest.fixture
def said(environ, lockkit_line, tmp_path):
    def run(*words, **variables):
        return subprocess.run(
            [*lockkit_line, *words],
            env=environ | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def held(started, lockkit_line, client):
    """A lock that a pod holds."""
    run = started(*lockkit_line, "run", "beat", "--", "sh", "-c", "echo in; exec sleep 60", env=POD)
    assert run.stdout.readline() == "in\n", run.stderr.read()


@pytest.mark.usefixtures("held")
def test_status_and_explain_name_the_pod_its_namespace_and_its_node(said):
    (lock,) = json.loads(said("status", "--json").stdout)["locks"]
    owner = lock["holders"][0]["owner"]

    assert (owner["pod"], owner["pod_namespace"], owner["node"]) == ("worker-7d4f", "shop", "node-3")
    assert "(sh) in pod shop/worker-7d4f on node-3 since" in said("explain", "beat").stdout
    assert "in pod shop/worker-7d4f on node-3" in said("status", COLUMNS="200").stdout


@pytest.mark.usefixtures("held")
def test_who_finds_a_lock_busy_is_told_the_pod(said):
    busy = said("run", "beat", "--no-wait", "--", "true")

    assert busy.returncode == 75
    assert "in pod shop/worker-7d4f on node-3" in busy.stderr


def test_what_a_service_called_lockkit_injects_changes_no_setting_and_warns_of_nothing(said):
    before, after = said("config", "show", "--json"), said("config", "show", "--json", **INJECTED)

    assert (after.stdout, after.stderr) == (before.stdout, "")
    run = said("run", "beat", "--", "true", **INJECTED)
    assert (run.returncode, run.stderr) == (0, "")
    for words in (("config", "check"), ("doctor",)):
        told = said(*words, **INJECTED)
        assert "unknown to lockkit" not in told.stdout + told.stderr


def test_scope_fleet_refuses_a_store_that_a_pod_has_to_itself(said):
    refused = said("run", "beat", "--", "true", LOCKKIT_URL="sqlite:")

    assert refused.returncode == 78
    assert "'fleet'" in refused.stderr
