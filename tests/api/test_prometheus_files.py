"""The ready-made rules and dashboard ask for nothing that is not there, and so does what was made for blackbox."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.api.test_metrics import scrape
from tests.test_cli import servmon

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
# What Prometheus itself adds to every series.
ADDED = {"instance", "job"}
# As the dashboards and rules for blackbox_exporter ask; `instance` is the target, as the scrape configuration makes it.
BLACKBOX = (
    'probe_success{instance=~"$target"}',
    "count(probe_success == 0)",
    'avg_over_time(probe_success{instance=~"$target"}[1h])',
    'avg(probe_duration_seconds{instance=~"$target"})',
    'avg(probe_dns_lookup_time_seconds{instance=~"$target"})',
    'sum by (phase) (probe_http_duration_seconds{instance=~"$target"})',
    'sum by (phase) (probe_icmp_duration_seconds{instance=~"$target"})',
    'probe_http_status_code{instance=~"$target"}',
    'probe_http_ssl{instance=~"$target"} == 1',
    'probe_http_redirects{instance=~"$target"}',
    'probe_failed_due_to_regex{instance=~"$target"}',
    'probe_ip_protocol{instance=~"$target"}',
    'probe_ssl_earliest_cert_expiry{instance=~"$target"} - time()',
    "up == 0 or probe_success == 0",
)


async def printed(what: str) -> str:
    code, out, err = await servmon("prometheus", what)
    assert (code, err) == (0, "")
    return out


async def dashboard_queries() -> list[str]:
    dashboard = json.loads(await printed("dashboard"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(queries) > 20
    return queries


async def rule_queries() -> list[str]:
    return re.findall(r"^ +expr: (.+)$", await printed("rules"), re.MULTILINE)


async def every_query() -> list[str]:
    return [*await dashboard_queries(), *await rule_queries(), *BLACKBOX]


async def test_every_metric_and_label_that_a_query_names_exists():
    _, text = await scrape()
    metrics = set(re.findall(r"^(\w+)", text, re.MULTILINE))
    known_labels = set(re.findall(r'[{,](\w+)="', text)) | ADDED
    for query in await every_query():
        named = set(re.findall(r"\b(?:servmon|probe|process)_\w+", query))
        assert named or query.startswith("up"), query
        assert named <= metrics, query
        matched = re.findall(r"[{,](\w+)[=!]", query)
        grouped = [name for names in re.findall(r"\b(?:by|on) \(([^)]*)\)", query) for name in names.split(", ")]
        assert {*matched, *grouped} <= known_labels, query


async def test_the_dashboards_variables_ask_for_labels_that_exist():
    _, text = await scrape()
    for variable in json.loads(await printed("dashboard"))["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+).*, (\w+)\)", variable["definition"]).groups()
            assert re.search(rf'^{metric}{{.*\b{label}="', text, re.MULTILINE)


async def test_promtool_accepts_every_query_and_the_rules(tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool, of Debian's package prometheus, is not installed")
    every = tmp_path / "every.yml"
    rules = [{"record": f"q{n}", "expr": query} for n, query in enumerate(await every_query())]
    every.write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}), encoding="utf-8")
    ours, scraping = tmp_path / "rules.yml", tmp_path / "prometheus.yml"
    ours.write_text(await printed("rules"), encoding="utf-8")
    scraping.write_text("scrape_configs:\n" + await printed("scrape"), encoding="utf-8")
    ask = partial(subprocess.run, capture_output=True, text=True, check=False)
    for command in (("rules", every), ("rules", ours), ("config", "--syntax-only", scraping)):
        done = await asyncio.to_thread(ask, [promtool, "check", *map(str, command)])
        assert done.returncode == 0, done.stdout + done.stderr


async def test_the_readme_lists_every_metric_and_no_other():
    _, text = await scrape()
    families = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    told = set(re.findall(r"`((?:servmon|probe|process)_\w+)`", README))
    assert told == families
