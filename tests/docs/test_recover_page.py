"""The oracles of docs/howto/recover.md, with fakes of kubectl and scontrol that answer like the real ones."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

from lockkit.config.config import load
from lockkit.errors import ConfigError
from lockkit.facts import Owner
from lockkit.observe.oracles import HOOK, Oracles
from lockkit.plugins import PluginManager

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "owner-oracles"


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Puts a program on the path that prints an answer and exits, and returns the file with its arguments."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def make(name, answer, code=0):
        (tmp_path / "answer").write_text(answer)
        (tmp_path / name).write_text(
            f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat {tmp_path}/answer\nexit {code}\n'
        )
        (tmp_path / name).chmod(0o755)
        return tmp_path / "asked"

    return make


@pytest.fixture
def ask(tmp_path):
    """The answer of a plugin of the page, through the real plugin manager."""

    def answer(module, owner, table='namespace = "training"\nprefix = "trainer-"\n'):
        spec = importlib.util.spec_from_file_location(module, EXAMPLES / f"{module}.py")
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        (tmp_path / "lockkit.toml").write_text(f"[plugins.pod-oracle]\n{table}")
        manager = PluginManager([found.plugin])
        manager.check_settings(
            load("memory:", config=tmp_path / "lockkit.toml", environ={}, etc=tmp_path / "none")
        )
        implementations = [
            one for one in manager.implementations(HOOK) if one[0] == type(found.plugin).__name__
        ]
        (one,) = Oracles(implementations).ask(owner)
        return one

    return answer


def pod(phase):
    return json.dumps({"kind": "Pod", "status": {"phase": phase}})


@pytest.mark.parametrize(
    "answer, code, alive",
    [
        (pod("Running"), 0, True),
        (pod("Pending"), 0, True),
        (pod("Succeeded"), 0, False),
        (pod("Failed"), 0, False),
        (pod("Unknown"), 0, None),
        ("", 0, False),
        ("", 1, None),
    ],
    ids=["running", "pending", "succeeded", "failed", "unknown", "deleted", "no answer"],
)
def test_the_oracle_of_pods(tool, ask, answer, code, alive):
    asked = tool("kubectl", answer, code)

    assert ask("pod_oracle", Owner("ann", "node-1", 7, pod="trainer-7")).alive is alive
    assert asked.read_text().startswith("get pod trainer-7 --namespace training ")


@pytest.mark.parametrize("name", [None, "web-1", "--kubeconfig=/tmp/x", "trainer-7 --force"])
def test_the_oracle_of_pods_says_nothing_of_others(tool, ask, name):
    asked = tool("kubectl", "")

    assert ask("pod_oracle", Owner("ann", "node-1", 7, pod=name)).alive is None
    assert not asked.exists()


def test_the_oracle_of_pods_says_nothing_of_a_namespace_that_it_does_not_ask_about(tool, ask):
    asked = tool("kubectl", "")
    owner = Owner("ann", "node-1", 7, pod="trainer-7")

    assert ask("pod_oracle", owner._replace(pod_namespace="shop")).alive is None
    assert not asked.exists()
    assert ask("pod_oracle", owner._replace(pod_namespace="training")).alive is False


@pytest.mark.parametrize(
    "answer, code, alive",
    [
        ("JobId=4711 JobName=train JobState=RUNNING Reason=None", 0, True),
        ("JobId=4711 JobName=train JobState=COMPLETING Reason=None", 0, True),
        ("JobId=4711 JobName=train JobState=TIMEOUT Reason=TimeLimit", 0, False),
        ("JobId=4711 JobName=train JobState=NODE_FAIL Reason=NodeDown", 0, None),
        ("JobId=4711 JobName=train JobState=PENDING Restarts=1", 0, None),
        ("slurm_load_jobs error: Invalid job id specified", 1, None),
    ],
    ids=["running", "completing", "timeout", "node lost", "queued again", "not known"],
)
def test_the_oracle_of_slurm_jobs(tool, ask, answer, code, alive):
    asked = tool("scontrol", answer, code)

    assert ask("slurm_oracle", Owner("ann", "node-1", 7, task="slurm:4711")).alive is alive
    assert asked.read_text() == "show job 4711 --oneliner\n"
    assert ask("slurm_oracle", Owner("ann", "node-1", 7, task="epoch 4")).alive is None


@pytest.mark.parametrize("table", ['namespace = "training"\n', 'namespace = "training"\nprefix = ""\n'])
def test_the_oracle_of_pods_is_not_set_up_without_the_pods_that_it_may_speak_of(ask, table):
    """Without a prefix each pod of another cluster would be missing here, and count as dead."""
    with pytest.raises(ConfigError, match="prefix"):
        ask("pod_oracle", Owner("ann", "node-1", 7, pod="trainer-7"), table)
