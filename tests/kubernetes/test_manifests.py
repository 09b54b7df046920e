"""The manifests of docs/ops/kubernetes: valid by schema; their commands, settings, paths and ports exist."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

import lockkit
from lockkit.cli.main import cli
from lockkit.config.config import load
from lockkit.config.layers import ENVIRONMENT
from lockkit.server.endpoints import ENDPOINTS
from lockkit.server.tokens import TokenFile

yaml = pytest.importorskip("yaml")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docs/ops/kubernetes").iterdir())
VERSIONS = ("1.32", "1.37")
"""The oldest and the newest version of Kubernetes whose schemas are tried."""
DOWNWARD = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "NODE_NAME": "spec.nodeName"}


def documents():
    return [(path.name, one) for path in FILES for one in yaml.safe_load_all(path.read_text())]


def pods():
    """The specification of each pod, with its labels."""
    found = []
    for name, one in documents():
        template = one.get("spec", {}).get("template")
        if one["kind"] == "CronJob":
            template = one["spec"]["jobTemplate"]["spec"]["template"]
        if template is not None:
            found.append(pytest.param(template["spec"], template["metadata"]["labels"], id=name))
    return found


def image(name, kind="ENTRYPOINT"):
    text = (ROOT / "docs/ops/container/Containerfile").read_text()
    return re.search(rf"^{kind} (.*)$", text, re.MULTILINE)[1]


def words_of(container):
    """The words that a container starts, with those of lockkit's image if it names none."""
    words = container.get("command", ["lockkit"] if "/lockkit:" in container["image"] else [])
    return [*words, *container.get("args", [])]


def started(words):
    """The options of the command of lockkit that these words start."""
    command = cli.get_command(click.Context(cli), words[1])
    with command.make_context(words[1], list(words[2:]), parent=click.Context(cli)) as ctx:
        return command.name, ctx.params


every_pod = pytest.mark.parametrize("pod, labels", pods())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name, document", documents())
def test_a_manifest_is_valid(name, document, version):
    kubernetes_validate.validate(document, version, strict=True)


def test_a_wrong_manifest_is_not():
    (deployment,) = yaml.safe_load_all((ROOT / "docs/ops/kubernetes/beat.yaml").read_text())
    deployment["spec"]["replica"] = 2

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


def test_there_are_workers_a_singleton_a_job_a_server_and_the_network_and_the_page_shows_each():
    page = (ROOT / "docs/howto/kubernetes.md").read_text()

    assert {path.stem for path in FILES} == {"workers", "beat", "nightly", "serve", "network"}
    assert [path.name for path in FILES if f"ops/kubernetes/{path.name}" not in page] == []


@every_pod
def test_a_container_starts_a_command_that_takes_these_words(pod, labels):
    for container in pod["containers"]:
        words = words_of(container)
        if words[0] == "lockkit":
            name, _ = started(words)
            assert name == words[1]
            words = words[words.index("--") + 1 :] if "--" in words else []
        if words[:1] == ["celery"]:
            celery = pytest.importorskip("celery.bin.celery").celery
            assert words[1].startswith("--app=")
            command = celery.commands[words[2]]
            _, left, _ = command.make_parser(click.Context(command)).parse_args(list(words[3:]))
            assert left == []


@every_pod
def test_the_environment_is_of_settings_and_tells_the_pod(pod, labels):
    for container in pod["containers"]:
        said = {one["name"]: one for one in container["env"]}
        assert {name for name in said if name not in ENVIRONMENT} == set(DOWNWARD)
        assert {name: said[name]["valueFrom"]["fieldRef"]["fieldPath"] for name in DOWNWARD} == DOWNWARD
        config = load(
            environ={
                n: one["value"] for n, one in said.items() if n in ENVIRONMENT and n != "LOCKKIT_CONFIG"
            },
            etc="/none",
            home="/none",
            cwd="/",
        )
        assert config.scope == "fleet" or "/etc/lockkit" in {
            one["mountPath"] for one in container["volumeMounts"]
        }


def test_the_configuration_of_the_server_is_one(tmp_path):
    (text,) = [one["data"]["config.toml"] for _, one in documents() if one["kind"] == "ConfigMap"]
    (tmp_path / "config.toml").write_text(text)

    config = load(config=tmp_path / "config.toml", environ={}, etc=tmp_path / "none")

    assert (config.scope, config.url) == ("fleet", "redis://redis:6379/0")
    assert {"lockkit", "lockkit.shop.svc"} <= set(config.serve_hosts)
    assert set(tomllib.loads(text)) == {"url", "scope", "serve"}


@every_pod
def test_folders_that_are_written_are_mounted_and_every_mount_has_its_volume(pod, labels):
    volumes = {one["name"] for one in pod["volumes"]}
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        assert set(mounts.values()) <= volumes
        assert container["securityContext"]["readOnlyRootFilesystem"]
        for one in container.get("env", []):
            if one["name"] in ("LOCKKIT_STATE_DIR", "LOCKKIT_SERVE_TOKEN_FILE"):
                path = Path(one["value"])
                assert {str(path), str(path.parent)} & set(mounts)


@every_pod
def test_a_pod_that_locks_may_reach_the_store(pod, labels):
    (rule,) = [
        one for _, one in documents() if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "redis"
    ]
    (source,) = rule["spec"]["ingress"][0]["from"]

    assert source["podSelector"]["matchLabels"].items() <= labels.items()


def test_selectors_find_the_pods_of_their_deployment_or_service():
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for _, one in documents()
        if one["kind"] == "Deployment"
    }
    for _, one in documents():
        if one["kind"] == "Deployment":
            assert one["spec"]["selector"]["matchLabels"].items() <= labels[one["metadata"]["name"]].items()
        if one["kind"] == "Service":
            assert one["spec"]["selector"].items() <= labels[one["metadata"]["name"]].items()


def test_probes_and_ports_are_those_of_the_server():
    (pod,) = [param.values[0] for param in pods() if param.id == "serve.yaml"]
    (container,) = pod["containers"]
    _, options = started(words_of(container))
    (port,) = container["ports"]
    open_paths = {one.path for one in ENDPOINTS if one.scope is None}

    assert options["bind"] == f"0.0.0.0:{port['containerPort']}"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == port["name"]
        assert container[probe]["httpGet"]["path"] in open_paths
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    (service,) = [one for _, one in documents() if one["kind"] == "Service"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    (rule,) = [
        one
        for _, one in documents()
        if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "lockkit"
    ]
    assert rule["spec"]["ingress"][0]["ports"][0]["port"] == port["name"]


def test_the_state_of_the_server_is_on_a_volume_that_outlives_its_pod():
    (pod,) = [param.values[0] for param in pods() if param.id == "serve.yaml"]
    (container,) = pod["containers"]
    (state,) = [one["value"] for one in container["env"] if one["name"] == "LOCKKIT_STATE_DIR"]
    (mount,) = [one for one in container["volumeMounts"] if state.startswith(f"{one['mountPath']}/")]
    (volume,) = [one for one in pod["volumes"] if one["name"] == mount["name"]]
    (claim,) = [one for _, one in documents() if one["kind"] == "PersistentVolumeClaim"]

    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (deployment,) = [
        one for _, one in documents() if one["kind"] == "Deployment" and one["metadata"]["name"] == "lockkit"
    ]
    assert (claim["spec"]["accessModes"], deployment["spec"]["strategy"]) == (
        ["ReadWriteOnce"],
        {"type": "Recreate"},
    )


def test_the_server_runs_as_the_user_of_its_image_and_in_its_version():
    (pod,) = [param.values[0] for param in pods() if param.id == "serve.yaml"]

    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == image(
        "USER", "USER"
    )
    assert {one["image"].rpartition(":")[2] for one in (*pod["containers"], *pod["initContainers"])} == {
        lockkit.__version__
    }
    assert image("ENTRYPOINT") == '["lockkit"]'


def test_the_tokens_of_a_secret_are_copied_to_a_file_that_the_server_accepts(tmp_path):
    """A Secret is mounted as links to files that the group may read, which a server refuses."""
    (pod,) = [param.values[0] for param in pods() if param.id == "serve.yaml"]
    (tmp_path / "secrets/..data").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    real, link = tmp_path / "secrets/..data/serve-tokens", tmp_path / "secrets/serve-tokens"
    real.write_text(f"ann admin {'x' * 40}\n")
    real.chmod(0o440)
    link.symlink_to("..data/serve-tokens")
    with pytest.raises(lockkit.ConfigError):
        TokenFile(str(link))
    (copy,) = pod["initContainers"]
    words = [
        word.replace("/secrets/", f"{tmp_path}/secrets/", 1)
        if word.startswith("/secrets/")
        else word.replace("/run/secrets", f"{tmp_path}/run")
        for word in copy["command"]
    ]

    subprocess.run(words, check=True, env=os.environ | {"LC_ALL": "C"})

    assert TokenFile(f"{tmp_path}/run/serve-tokens").visitor("x" * 40).name == "ann"


def test_the_job_keeps_its_lock_for_longer_than_clocks_may_differ_and_ends_before_it_is_due_again():
    (pod,) = [param.values[0] for param in pods() if param.id == "nightly.yaml"]
    name, options = started(words_of(pod["containers"][0]))

    assert name == "run"
    assert 60 < options["min_hold"] < options["max_hold"] < 24 * 3600
    assert options["no_wait"]
    assert options["conflict_code"] == 0
