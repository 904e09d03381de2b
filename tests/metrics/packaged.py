"""What packaging/ and docs/ say of the figures, held to promtool, to Debian's Prometheus and to a scrape."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse

import relay as relays
import scrape
from cases import Failure

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
RULES = os.path.join(ROOT, "packaging", "prometheus", "radiotower.rules.yml")
RULES_TEST = os.path.join(ROOT, "packaging", "prometheus", "radiotower.rules.test.yml")
SCRAPE_EXAMPLE = os.path.join(ROOT, "packaging", "prometheus", "scrape.yml")
DASHBOARD = os.path.join(ROOT, "packaging", "grafana", "radiotower.json")
MANUAL = os.path.join(ROOT, "docs", "metrics.md")


def promtool(*words, stdin=None):
    done = subprocess.run(["promtool", *words], input=stdin, capture_output=True, text=True, timeout=120, cwd=os.path.dirname(RULES))
    if done.returncode != 0 or "level=error" in done.stderr:
        raise Failure(f"promtool {' '.join(words[:2])}: {(done.stdout + done.stderr).strip()[-600:]}")
    return done.stdout + done.stderr


def check_metrics(body):
    said = promtool("check", "metrics", stdin=body).strip()
    if said:
        raise Failure(said)
    return f"{len(scrape.families(body))} metrics, {len(scrape.parse(body))} series"


def compare(figures, query):
    compared = 0
    for result in query('{__name__=~"radiotower_(requests|relayed_bytes|dropped_packets|allocations_ended)_total|radiotower_relay_ports"}'):
        labels = {k: v for k, v in result["metric"].items() if k not in ("__name__", "instance", "job")}
        name = result["metric"]["__name__"]
        if float(result["value"][1]) != figures[scrape.series(name, **labels)]:
            raise Failure(f"{name}{labels}: Prometheus has {result['value'][1]}")
        compared += 1
    firing = {r["metric"]["alertname"] for r in query('ALERTS{alertstate="firing"}')}
    if compared < 50 or firing != {"RadiotowerCertificateExpiresNow"}:  # the test's certificate is good for two days
        raise Failure(f"{compared} series compared, firing: {firing}")
    return f"{compared} series are the same"


def prometheus_scrapes(relay):
    """Debian's Prometheus, with the rules of packaging/: what it has stored is what the relay says, and the one alert fires that is to."""
    folder = tempfile.mkdtemp(prefix="metrics-prometheus-")
    port = relays.free_port()
    with open(os.path.join(folder, "prometheus.yml"), "w") as f:
        f.write(f"global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\nrule_files: ['{os.path.abspath(RULES)}']\n"
                f"scrape_configs:\n- {{job_name: radiotower, static_configs: [{{targets: ['127.0.0.1:{relay.metrics_port}']}}]}}\n")
    promtool("check", "config", os.path.join(folder, "prometheus.yml"))
    with open(os.path.join(folder, "log"), "wb") as log:
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    try:
        def query(expression):
            status, _, body = scrape.get(port, "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
            return json.loads(body)["data"]["result"] if status == 200 else []

        end = time.monotonic() + 90
        while True:
            try:
                if query('up{job="radiotower"} == 1'):
                    break
            except (OSError, ValueError, KeyError):
                pass
            if time.monotonic() > end or server.poll() is not None:
                with open(os.path.join(folder, "log")) as f:
                    raise Failure(f"Prometheus has scraped nothing: {f.read()[-500:]}")
            time.sleep(0.2)
        end = time.monotonic() + 60
        while True:  # the relay is quiet: at its next scrape and evaluation it is so
            try:
                return compare(relay.figures(), query)
            except (Failure, OSError, ValueError, KeyError) as why:
                if time.monotonic() > end:
                    raise Failure(str(why)) from None
            time.sleep(0.5)
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


METRIC = re.compile(r"\b((?:radiotower|process|turn|stun)_[a-z0-9_]+)\b")
SUFFIXES = ("_bucket", "_sum", "_count")


def named_in(text):
    return {re.sub("(?<=_seconds)(" + "|".join(SUFFIXES) + ")$", "", name) for name in METRIC.findall(text)}


def expressions():
    """Every PromQL expression of the rules and the dashboard."""
    with open(RULES) as f:
        found = re.findall(r"^\s+expr: (.*(?:\n {10,}.*)*)", f.read(), re.M)
    with open(DASHBOARD) as f:
        board = json.load(f)
    for panel in board["panels"]:
        found += [target["expr"] for target in panel.get("targets", [])]
    found += [v["query"] if isinstance(v["query"], str) else v["query"]["query"] for v in board["templating"]["list"] if v["type"] == "query"]
    return found


def names_exist(known):
    """A metric that an alert, a panel or the manual names is one that a scrape has."""
    wrong = {}
    for expression in expressions():
        for name in named_in(re.sub(r'"[^"]*"', '""', expression)):
            if name not in known:
                wrong[name] = expression
    if wrong:
        raise Failure(str(wrong))
    return f"{len(expressions())} expressions"


def labels_exist(relay):
    """And so is each label value that they ask for."""
    figures, wrong = relay.figures(), []
    values = {}
    for name, labels in figures:
        for label, value in labels:
            values.setdefault(label, set()).add(value)
    for expression in expressions():
        for label, operator, value in re.findall(r'(\w+)(=~?|!=)"([^"$]*)"', expression):
            if label in ("job", "instance", "source", "result", "what") or operator == "!=":
                continue
            for one in value.split("|") if operator == "=~" else [value]:
                if one not in values.get(label, ()) and not any(re.fullmatch(one, v) for v in values.get(label, ())):
                    wrong.append(f"{label}={one}")
    if wrong:
        raise Failure(", ".join(sorted(set(wrong))))
    return f"{len(values)} labels"


def manual(body):
    """docs/metrics.md has a row for each metric, with its type and its labels; and none that is not there."""
    with open(MANUAL) as f:
        text = f.read()
    rows = {m[0]: (m[1], set(re.findall(r"`(\w+)`", m[2]))) for m in re.findall(r"^\| `([a-z_]+)` \| (\w+) \|([^|]*)\|", text, re.M)}
    types = scrape.families(body)
    labels = {}
    for name, pairs in scrape.parse(body):
        base = next((name[: -len(s)] for s in SUFFIXES if name.endswith(s) and name[: -len(s)] in types), name)
        labels.setdefault(base, set()).update(k for k, _ in pairs if k != "le")
    wrong = sorted(set(types) ^ set(rows) - {"radiotower_drain_deadline_timestamp_seconds"})
    wrong += [f"{name} is a {types[name][0]}" for name in rows if name in types and rows[name][0] != types[name][0]]
    wrong += [f"{name}: {labels[name]}" for name in rows if name in labels and rows[name][1] != labels[name]]
    # Values of the labels that operators look up.
    for name, label in (("radiotower_dropped_packets_total", "reason"), ("radiotower_allocations_ended_total", "reason"),
                        ("radiotower_connections_closed_total", "reason"), ("radiotower_connections_refused_total", "reason"),
                        ("radiotower_relayed_bytes_total", "path")):
        for n, pairs in scrape.parse(body):
            if n == name and f"`{dict(pairs)[label]}`" not in text:
                wrong.append(f'{name} {label}="{dict(pairs)[label]}"')
    if wrong:
        raise Failure(", ".join(wrong))
    return f"{len(rows)} metrics"


def dashboard():
    with open(DASHBOARD) as f:
        board = json.load(f)
    for panel in board["panels"]:
        if panel["type"] != "row" and panel["datasource"] != {"type": "prometheus", "uid": "${datasource}"}:
            raise Failure(f"{panel['title']}: another data source")
    ids = [panel["id"] for panel in board["panels"]]
    if len(set(ids)) != len(ids) or not any(v["type"] == "datasource" for v in board["templating"]["list"]):
        raise Failure("ids or data source")
    for expression in expressions():
        expression = expression.replace("$__rate_interval", "5m").replace("$__range", "1h").replace("$job", "radiotower").replace("$instance", ".*")
        if expression.count("(") != expression.count(")") or "$" in expression:
            raise Failure(expression)
    return f"{len(ids)} panels"


def panels_parse():
    """The dashboard's expressions, as rules that promtool reads."""
    folder = tempfile.mkdtemp(prefix="metrics-panels-")
    try:
        rules = []
        for i, expression in enumerate(expressions()):
            expression = expression.replace("$__rate_interval", "5m").replace("$__range", "1h").replace("$job", "radiotower").replace("$instance", ".*")
            if not expression.startswith("label_values("):
                rules.append({"record": f"panel:number:{i}", "expr": expression})
        path = os.path.join(folder, "panels.json")  # JSON is YAML
        with open(path, "w") as f:
            json.dump({"groups": [{"name": "panels", "rules": rules}]}, f)
        promtool("check", "rules", path)
        return f"{len(rules)} expressions"
    finally:
        shutil.rmtree(folder)
