"""The shipped rules and dashboard, on a real Prometheus that scrapes a real holder and waiter."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lockkit.observe.instruments import METRICS
from lockkit.testing.processes import ServerMissing, until
from support.servers.prometheus import PrometheusServer

OPS = Path(__file__).parents[2] / "docs" / "ops"
RULES = OPS / "prometheus" / "lockkit.rules.yml"
DASHBOARD = json.loads((OPS / "grafana" / "lockkit.json").read_text())
SUFFIX = re.compile(r"_(?:bucket|count|sum)$")

SCRAPED = """
    import sys, threading
    import lockkit
    from prometheus_client import REGISTRY, start_http_server
    from lockkit.observe.exporter import Exporter
    from lockkit.observe.metrics import Metrics

    url = f"sqlite:{sys.argv[1]}/locks.db"
    client = lockkit.connect(url, metrics_names=["gpu/*", "nightly"], plugins=[Metrics()])
    REGISTRY.register(Exporter(client, keep=0.1))
    held = client.lock("gpu/0").acquire()
    nightly = client.lock("nightly", ttl=3).acquire()
    other = lockkit.connect(url)
    queued = threading.Event()
    def waits():
        other.lock("gpu/0").acquire(timeout=600, on_wait=lambda _: queued.set())
    threading.Thread(target=waits, daemon=True).start()
    queued.wait()
    server, _ = start_http_server(0, addr="127.0.0.1")
    print(server.server_port, flush=True)
    sys.stdin.readline()
    client.evict("nightly", nightly.claim_id, reason="a first loss", now=True)
    sys.stdin.read()
    held.release()
"""


def queries():
    """Every query of the dashboard, by its panel."""
    return [
        (panel["title"], target["expr"])
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", [])
    ]


def names(expression):
    return set(re.findall(r"\blockkit_\w+", expression))


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scraped")
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SCRAPED), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "LOCKKIT_CONFIG": "/dev/null"},
    ) as process:
        try:
            port = int(process.stdout.readline())
            with PrometheusServer([f"127.0.0.1:{port}"], [RULES]) as server:
                until(
                    lambda: (
                        server.query("lockkit_blocked_seconds")
                        and server.query("lockkit:last_held_timestamp_seconds")
                        and all(rule["health"] == "ok" for rule in server.rules())
                    ),
                    "Prometheus has scraped the process and evaluated the rules",
                    60.0,
                )
                server.lose = lambda: print(file=process.stdin, flush=True)
                yield server
        except ServerMissing as missing:
            pytest.skip(str(missing))
        finally:
            process.stdin.close()


def test_the_rule_feels_the_first_loss_of_a_process(prometheus):
    """A series that starts with its first loss has no increase."""
    assert prometheus.query('ALERTS{alertname="LockkitLost"}') == []

    prometheus.lose()

    fired = 'ALERTS{alertname="LockkitLost", lock="nightly", alertstate="firing"}'
    until(lambda: prometheus.query(fired), "the rule has fired", 60.0)


def test_the_first_row_of_the_dashboard_says_who_blocks_whom(prometheus):
    row, table = DASHBOARD["panels"][:2]
    assert row["title"] == "Who blocks whom now"

    (series,) = prometheus.query(filled(table["targets"][0]["expr"]))

    assert series["metric"]["lock"] == "gpu/*"
    assert {"waiter", "holder"} <= set(series["metric"])
    assert float(series["value"][1]) > 0


def filled(expression):
    """An expression as Grafana sends it, with its variables filled in."""
    for variable, value in {
        "$__rate_interval": "1m",
        "$store": ".*",
        "$namespace": ".*",
        "$lock": ".*",
    }.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


@pytest.mark.parametrize("panel,expression", queries())
def test_every_query_of_the_dashboard_is_one_that_prometheus_answers(prometheus, panel, expression):
    prometheus.query(filled(expression))


@pytest.mark.parametrize("panel,expression", queries())
def test_every_query_of_the_dashboard_is_about_metrics_of_the_list(panel, expression):
    assert names(expression)
    assert {SUFFIX.sub("", name) for name in names(expression)} <= set(METRICS)


def test_every_rule_is_about_metrics_of_the_list_and_is_evaluated(prometheus):
    rules = prometheus.rules()

    assert len(rules) >= 19
    assert [rule["lastError"] for rule in rules if rule["health"] != "ok"] == []
    for rule in rules:
        assert names(rule["query"]) <= set(METRICS)


def test_every_metric_of_the_list_that_a_quiet_process_has_is_scraped(prometheus):
    """Metrics of things that have not happened have no series yet, unless they count from 0."""
    quiet = {metric.name for metric in METRICS.values() if metric.stat} | {
        *("lockkit_build_info", "lockkit_store_up", "lockkit_scrape_partial", "lockkit_scrape_seconds"),
        *("lockkit_locks", "lockkit_holders", "lockkit_waiters", "lockkit_clients", "lockkit_drained"),
        *("lockkit_last_held_timestamp_seconds", "lockkit_attempts_total", "lockkit_alerts_total"),
    }
    assert quiet <= set(METRICS)

    assert {name for name in quiet if not prometheus.query(name)} == set()


@pytest.mark.parametrize(
    "command", [["check", "rules", RULES], ["test", "rules", RULES.with_suffix(".test.yml")]]
)
def test_promtool_accepts_the_rules_and_their_examples_hold(command):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; .ci/system prometheus")

    done = subprocess.run([promtool, *command], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
