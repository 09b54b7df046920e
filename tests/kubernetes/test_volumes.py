"""The pods of docs/ops/kubernetes on the file system of Kubernetes: lockkit's files have a place there.

An ``emptyDir`` is root's, writable for all, with the group of ``fsGroup``. All else is read-only to the pods.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lockkit.testing.processes import until

yaml = pytest.importorskip("yaml")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root to mount file systems and to become another user"
)

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docs/ops/kubernetes").iterdir())
TOKEN = "x" * 43
# Read as root, because this environment may lie in a folder of root's. All else is the user's right.
USER = (
    "setpriv --reuid {user} --regid {group} --clear-groups --inh-caps=-all,+dac_read_search "
    "--ambient-caps=-all,+dac_read_search"
)


def pods():
    return [*_pods()]


def _pods():
    for path in FILES:
        for one in yaml.safe_load_all(path.read_text()):
            spec = one.get("spec", {})
            template = (spec.get("jobTemplate", {}).get("spec") or spec).get("template")
            if template is not None:
                yield pytest.param(template["spec"], id=path.stem)


class Pod:
    """The mounts of a pod, in a mount namespace, and the commands that run there."""

    def __init__(self, spec, url, folder):
        self._spec = spec
        self._folder = folder
        self.container = spec["containers"][0]
        environ = {one["name"]: one["value"] for one in self.container["env"] if "value" in one}
        if "LOCKKIT_URL" not in environ:  # it has a configuration file, which names the server of the page
            (folder / "config.toml").write_text(f'url = "{url}"\nscope = "fleet"\n')
            environ["LOCKKIT_CONFIG"] = str(folder / "config.toml")
        else:
            environ["LOCKKIT_URL"] = url
        self.environ = environ | {
            "PATH": os.environ["PATH"],
            "HOME": "/",
            "TMPDIR": "/mnt",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def script(self, *commands):
        """Mount volumes as Kubernetes does, make the rest read-only, and run commands as the pod's user."""
        context = self._spec["securityContext"]
        mode = f"mode=2777,gid={context['fsGroup']}" if "fsGroup" in context else "mode=0777"
        empty = {
            one["name"] for one in self._spec["volumes"] if {"emptyDir", "persistentVolumeClaim"} & set(one)
        }
        lines = [
            "set -e",
            "mount --make-rprivate /",
            "mount -t tmpfs tmpfs /run",
            "mount -t tmpfs tmpfs /var/lib",
        ]
        places = {
            one["mountPath"]
            for container in [self.container, *self._spec.get("initContainers", [])]
            for one in container["volumeMounts"]
            if one["name"] in empty
        }
        # /tmp keeps what is in it: this folder, and maybe this environment. TMPDIR stands for it.
        lines += [
            f"mkdir -p {place}; mount -t tmpfs -o {mode} tmpfs {place}"
            for place in sorted(places - {"/tmp"} | {"/mnt"})
        ]
        lines.append("mount -o remount,ro,bind /")
        user = USER.format(user=context["runAsUser"], group=context["runAsGroup"])
        told = " ".join(shlex.quote(f"{name}={value}") for name, value in self.environ.items())
        lines += [f"{user} env -i {told} {command}" for command in commands]
        lines[-1] = f"exec {lines[-1]}"  # so that a signal reaches it
        return ["unshare", "-m", "bash", "-c", "\n".join(lines)]

    def before(self):
        """The commands of the containers that go before."""
        tokens = self._folder / "serve-tokens"
        tokens.write_text(f"ann admin {TOKEN}\n")
        tokens.chmod(0o440)
        for container in self._spec.get("initContainers", []):
            yield shlex.join(container["command"]).replace("/secrets/serve-tokens", str(tokens), 1)


@pytest.fixture
def pod(request, url, tmp_path):
    return Pod(request.param, url, tmp_path)


every_pod = pytest.mark.parametrize("pod", pods(), indirect=True)


@every_pod
def test_the_commands_of_lockkit_work_in_the_pod(pod):
    words = [
        f"{sys.executable} -m lockkit {command}"
        for command in ("run nightly -- true", "recover", "doctor --json")
    ]
    done = subprocess.run(
        pod.script(*pod.before(), *words), capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert [one for one in found["findings"] if one["severity"] == "error"] == []


def serves(url):
    try:
        return urllib.request.urlopen(url, timeout=30).status == 200
    except urllib.error.HTTPError:
        return False


@pytest.mark.parametrize("pod", [one for one in pods() if one.id == "serve"], indirect=True)
def test_the_server_serves_in_its_pod_and_acts_for_a_token(pod, client):
    serve = f"{sys.executable} -u -m lockkit serve --bind 127.0.0.1:0"
    line = pod.script(*pod.before(), f"{serve} 2>&1")
    lease = client.lock("held", ttl=60).acquire()
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
        try:
            said = next(filter(None, (re.search("http://[0-9.:]+", line) for line in server.stdout)))[0]
            until(lambda: serves(f"{said}/readyz"), "it is ready, for which the probe asks again and again")
            assert serves(f"{said}/livez")
            body = {"name": "held", "claim_id": lease.claim_id, "reason": "told to", "now": True}
            request = urllib.request.Request(
                f"{said}/api/evict",
                json.dumps(body).encode(),
                {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
            )
            assert json.load(urllib.request.urlopen(request, timeout=30))["outcome"] == "REMOVED"
        finally:
            with contextlib.suppress(ProcessLookupError):
                server.terminate()
    assert lease.release().outcome == "LOST"
