"""``lockkit doctor --celery``: imports the app as ``celery -A`` does; mistakes and failures are findings."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("celery.app")

APP = """
from celery import Celery
from lockkit.integrations.celery import LockedTask

print("told by a module")
app = Celery("proj", broker="redis://localhost:1", backend="redis://localhost:1", include=["proj.tasks"])
app.conf.worker_pool = "solo"
app.conf.broker_transport_options = {"visibility_timeout": 45}
"""
TASKS = """
from proj.app import app
from lockkit.integrations.celery import LockedTask

@app.task(base=LockedTask, lock="bill:{number}", ttl=60, max_hold=300, time_limit=301, on_busy="wait")
def bill(number): ...

@app.task(base=LockedTask, lock="print", ttl=30)
def print_all(): ...
"""


@pytest.fixture
def proj(lockkit):
    folder = lockkit.folder / "proj"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "app.py").write_text(APP)
    (folder / "tasks.py").write_text(TASKS)
    return folder


def of_celery(done):
    return [one for one in json.loads(done.stdout)["findings"] if one["check"].startswith("celery")]


def test_each_mistake_is_a_sentence_with_the_setting_to_change(lockkit, proj):
    done = lockkit("doctor", "--celery", "proj.app")
    assert done.returncode == 2
    lines = done.stdout.splitlines()
    assert any(line.startswith("ok: proj.app: 2 tasks take locks; pool solo, ") for line in lines)
    for start, setting in [
        (
            "error: task proj.tasks.bill has a ttl of 60 s, above",
            "raise broker_transport_options['visibility_timeout']",
        ),
        ("error: task proj.tasks.bill may run for its time_limit of 5 min, above", "time_limit="),
        ("error: task proj.tasks.bill waits for a busy lock in the solo pool", "worker_pool"),
        ("warning: task proj.tasks.bill has a time limit, and the solo pool", "worker_pool"),
    ]:
        [line] = [line for line in lines if line.startswith(start)]
        assert setting in line
    assert "task proj.tasks.print_all" not in done.stdout
    assert "told by a module" in done.stderr


def test_json_has_the_findings_in_the_schema_of_doctor(lockkit, proj):
    done = lockkit("doctor", "--celery", "proj.app", "--json")
    checks = [(one["check"], one["severity"]) for one in of_celery(done)]
    assert done.returncode == 2
    assert checks[0] == ("celery", "ok")
    assert {("celery-ttl", "error"), ("celery-time-limit", "error"), ("celery-solo", "error")} < set(checks)
    assert "told by a module" in done.stderr


def test_an_app_without_mistakes_is_ok(lockkit, proj):
    mended = APP.replace('"solo"', '"prefork"').replace("45", "3600")
    (proj / "app.py").write_text(mended)
    (proj / "tasks.py").write_text(TASKS.replace("301", "300").replace(', on_busy="wait"', ""))
    done = lockkit("doctor", "--celery", "proj.app:app", "--fail-on", "warning", "--json")
    assert [one["severity"] for one in of_celery(done)] == ["ok"], done.stdout


@pytest.mark.parametrize(
    "name, change, told",
    [
        ("proj.nothing", {}, "ModuleNotFoundError: No module named 'proj.nothing'"),
        ("proj.app:nothing", {}, "No module named 'proj.app:nothing'"),
        ("proj.app:APP", {"app.py": "APP = 3"}, "'proj.app:APP' is no Celery app, but of the type int"),
        (
            "proj.app", {"app.py": "\nimport nothing_of_this_name"},
            "No module named 'nothing_of_this_name' (proj/app.py, line 2)",
        ),
        ("proj.app", {"app.py": "raise SystemExit(3)"}, "SystemExit: 3 (proj/app.py, line 1)"),
        (
            "proj.app", {"tasks.py": "import nothing_of_this_name"},
            "No module named 'nothing_of_this_name' (proj/tasks.py, line 1)",
        ),
        ("proj.app", {"app.py": "def ("}, "SyntaxError"),
        ("proj.app", {"tasks.py": TASKS.replace("{number}", "{amount}")}, "has no argument 'amount'"),
        ("proj.app", {"app.py": APP + "app.conf.lockkit_tll = 3"}, "did you mean lockkit_ttl?"),
    ],
)  # fmt: skip
def test_an_app_that_cannot_be_imported_is_an_error_and_the_other_checks_go_on(
    lockkit, proj, name, change, told
):
    for file, text in change.items():
        (proj / file).write_text(text)
    done = lockkit("doctor", "--celery", name, "--json")
    assert done.returncode == 2, done.stderr
    [finding] = of_celery(done)
    assert finding["severity"] == "error"
    assert told in f"{finding['message']} ({finding['hint']})"
    assert "Traceback" not in done.stderr
    assert any(one["check"] == "store" for one in json.loads(done.stdout)["findings"])


def test_without_the_option_celery_is_not_imported(lockkit, proj):
    code = "import sys; from lockkit.cli.main import run; run(['doctor']); print('celery' in sys.modules)"
    done = lockkit.run([lockkit.line()[0], "-c", code])
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_without_celery_the_extra_to_install_is_named(lockkit, proj):
    (lockkit.folder / "celery.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'celery'\", name='celery')"
    )
    done = lockkit("doctor", "--celery", "proj.app", "--json", env={"PYTHONPATH": str(lockkit.folder)})
    [finding] = of_celery(done)
    assert finding["hint"] == "pip install 'lockkit[celery]'"


def of_store(done):
    return [one for one in json.loads(done.stdout)["findings"] if one["check"] == "store"]


def test_the_store_of_the_app_is_examined_and_its_origin_is_told(lockkit, proj):
    url = f"sqlite:{lockkit.folder}/app.db"
    (proj / "app.py").write_text(
        APP + f"app.conf.lockkit_url = {url!r}\napp.conf.lockkit_namespace = 'bills'\n"
    )
    done = lockkit("doctor", "--celery", "proj.app", "--json")
    [finding] = of_store(done)
    assert f"store: {url} (from app.conf.lockkit_url), namespace bills" in finding["message"]
    assert json.loads(done.stdout)["store"]["url"] == url
    assert (lockkit.folder / "app.db").exists()


def test_a_store_of_the_app_that_does_not_answer_is_an_error(lockkit, proj):
    (proj / "app.py").write_text(APP + "app.conf.lockkit_url = 'redis://127.0.0.1:1'\n")
    done = lockkit("doctor", "--celery", "proj.app", "--json")
    assert "locks in redis://127.0.0.1:1 (from app.conf.lockkit_url)" in of_celery(done)[0]["message"]
    assert any(one["severity"] == "error" and "127.0.0.1:1" in one["message"] for one in of_store(done)), (
        done.stdout
    )
    assert done.returncode == 2


def test_the_options_of_the_call_come_before_the_settings_of_the_app(lockkit, proj):
    (proj / "app.py").write_text(
        APP + "app.conf.lockkit_url = 'redis://127.0.0.1:1'\napp.conf.lockkit_ttl = 33\n"
    )
    done = lockkit("doctor", "--celery", "proj.app", "--json", "--url", f"sqlite:{lockkit.folder}/mine.db")
    [finding] = of_store(done)
    assert "mine.db (from argument)" in finding["message"]


def test_a_pool_that_no_configuration_has_is_an_error(lockkit, proj):
    (proj / "tasks.py").write_text(TASKS.replace('lock="print"', 'pool="printers"'))
    done = lockkit("doctor", "--celery", "proj.app", "--json")
    [told] = [one for one in of_celery(done) if one["check"] == "celery-options"]
    assert told["severity"] == "error"
    assert (
        "proj.tasks.print_all can never take its lock: the configuration has no pool 'printers'"
        in told["message"]
    )
