"""``lockkit serve`` as a program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

TOKEN = "t" * 40


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return json.load(answer)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_a_signal_ends_it_although_somebody_watches(begun, number):
    process, line = begun()
    url = line.split()[1]

    with urllib.request.urlopen(f"{url}api/events", timeout=30) as stream:
        stream.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)

    assert line.startswith("serving http://127.0.0.1:")
    assert "view only" in line
    assert (process.returncode, out, err) == (0, "", "")


def test_it_speaks_json(begun):
    _, line = begun("--json")
    ready = json.loads(line)

    assert ready["schema"] == "lockkit.serve/1"
    assert ready["view_only"] is True
    assert get(f"{ready['url']}livez")["status"] == "ok"


def test_several_stores_in_one_server(begun, tmp_path):
    _, line = begun("--json", "--url", f"sqlite:{tmp_path}/a.db", "--url", f"sqlite:{tmp_path}/b.db")
    url = json.loads(line)["url"]

    assert len(get(f"{url}api/stores")["stores"]) == 2
    assert len(get(f"{url}health")["stores"]) == 2


def test_tokens_come_from_a_file_that_the_environment_names(begun, tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"ann operate {TOKEN}\n")
    file.chmod(0o600)
    _, line = begun("--json", LOCKKIT_SERVE_TOKEN_FILE=str(file))
    ready = json.loads(line)

    assert ready["view_only"] is False
    assert get(f"{ready['url']}api/stores", Authorization=f"Bearer {TOKEN}")["visitor"] == "ann"


def failed(tmp_path, *words, **settings):
    done = subprocess.run(
        [sys.executable, "-m", "lockkit", "serve", *words],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env={**os.environ, "HOME": str(tmp_path), "LOCKKIT_STATE_DIR": str(tmp_path / "state"), **settings},
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "192.0.2.1:8712"])
def test_an_address_for_other_hosts_needs_tokens_and_the_error_says_how_to_make_one(tmp_path, bind):
    code, err = failed(tmp_path, "--bind", bind)

    assert code == 78
    assert "needs tokens" in err
    assert "umask 077" in err
    assert "LOCKKIT_SERVE_TOKEN_FILE" in err


def test_the_commands_that_make_a_token_make_one(tmp_path, begun):
    _, err = failed(tmp_path, "--bind", "0.0.0.0:0")
    commands = err[err.index("(umask") :].strip().removesuffix(")")
    (tmp_path / ".config/lockkit").mkdir(parents=True)
    shell = subprocess.run(
        ["sh", "-c", f'{commands}; echo "$LOCKKIT_SERVE_TOKEN_FILE"'],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(tmp_path), "USER": "ann"},
    )
    file = shell.stdout.strip()
    token = Path(file).read_text().split()[2]
    _, line = begun("--json", LOCKKIT_SERVE_TOKEN_FILE=file)

    assert get(f"{json.loads(line)['url']}api/stores", Authorization=f"Bearer {token}")["scope"] == "admin"


@pytest.mark.parametrize(
    "bind", ["8712", "localhost", ":8712", "localhost:http", "::1:8712", "localhost:99999"]
)
def test_what_is_no_address_is_an_error(tmp_path, bind):
    code, err = failed(tmp_path, "--bind", bind)

    assert code == 78
    assert "HOST:PORT" in err


def test_an_address_in_use_is_an_error_that_says_what_to_do(tmp_path, begun):
    _, line = begun("--json")
    port = json.loads(line)["url"].rpartition(":")[2].strip("/")

    code, err = failed(tmp_path, "--bind", f"127.0.0.1:{port}")

    assert code == 78
    assert "--bind" in err


def test_a_proxy_may_put_it_below_a_prefix(begun):
    _, line = begun("--json", "--root-path", "/locks")
    url = json.loads(line)["url"]
    port = url.removesuffix("/locks/").rpartition(":")[2]

    assert url.endswith("/locks/")
    assert get(f"http://127.0.0.1:{port}/livez")["status"] == "ok"
    assert get(f"http://127.0.0.1:{port}/openapi.json")["servers"] == [{"url": "/locks"}]
