"""GET /metrics, and what it says as a dictionary: (name, ((label, value), ...)) -> number."""

import http.client
import re
import socket

from cases import Failure

SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)')


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


def connection(where):
    """`where`: a port of 127.0.0.1, or the path of a Unix socket."""
    return UnixConnection(where) if isinstance(where, str) else http.client.HTTPConnection("127.0.0.1", where, timeout=60)


def get(where, path="/metrics", method="GET", **headers):
    c = connection(where)
    try:
        c.request(method, path, headers=headers)
        answer = c.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        c.close()


def text(where):
    status, headers, body = get(where)
    if status != 200 or headers["Content-Type"] != "text/plain; version=0.0.4; charset=utf-8":
        raise Failure(f"/metrics: {status}, {headers}")
    return body


def parse(body):
    found = {}
    for line in body.splitlines():
        if line.startswith("#"):
            continue
        match = SAMPLE.match(line)
        if not match:
            raise Failure(f"no sample: {line}")
        name, labels, value = match.groups()
        key = (name, tuple(sorted(LABEL.findall(labels or ""))))
        if key in found:
            raise Failure(f"twice: {line}")
        found[key] = float(value)
    return found


def families(body):
    """name -> (type, help)"""
    types = dict(line.split(" ", 3)[2:] for line in body.splitlines() if line.startswith("# TYPE "))
    helps = dict(line.split(" ", 3)[2:] for line in body.splitlines() if line.startswith("# HELP "))
    return {name: (types[name], helps[name]) for name in types}


def series(name, /, **labels):
    return (name, tuple(sorted(labels.items())))


def total(figures, name, /, **labels):
    """Over all series of that name with these labels."""
    return sum(v for (n, have), v in figures.items() if n == name and set(labels.items()) <= set(have))
