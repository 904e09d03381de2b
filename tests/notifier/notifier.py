"""Starts radiotower-notifier on loopback for a test, hands it events, and ends it.

    with Notifier(binary, hook=server.hook_url()) as notifier:
        notifier.post("jenkins", {"project": "city/pump", "status": "failed"})

Leaving the block sends SIGTERM and expects exit status 0. Everything stays on 127.0.0.1; only what was started is ended, by its pid.
"""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "common"))
from cases import Failure
from ports import free_port

SECRET = "a-secret-of-the-tests-0123456789"
FORMATS = ("gitlab", "jenkins", "sonarqube", "artifactory", "gitea", "github", "alertmanager", "slack", "generic")
# So that every event is one post at once: what flood control does is for tests of its own.
NO_FLOOD_CONTROL = """
[flood]
posts_per_second = 1000
burst = 10000
channel_posts_per_minute = 10000
channel_burst = 10000
digest_from = 10000
"""
ALL_TO_BUILDS = """
[[route]]
channel = "builds"
every_state = true
"""


class Notifier:
    """`routes` and `extra` are TOML; `state` is kept when the caller gives one, for restarts on the same queue."""

    def __init__(self, binary, hook="", routes=ALL_TO_BUILDS, extra=NO_FLOOD_CONTROL, state=None, queue="sqlite", mattermost="", root="", environment=None, port=None, wrapper=(), generic=""):
        self.binary, self.wrapper = os.path.abspath(binary), list(wrapper)
        self.folder = tempfile.mkdtemp(prefix="notifier-")
        self.state = state or os.path.join(self.folder, "state")
        self.port = port or free_port(12_000, 19_999)
        self.environment = {**os.environ, **(environment or {})}
        self.process, self.log_path = None, os.path.join(self.folder, "log")
        self.config = os.path.join(self.folder, "notifier.toml")
        secret = os.path.join(self.folder, "secret")
        with open(os.open(secret, os.O_CREAT | os.O_WRONLY, 0o600), "w") as f:
            f.write(SECRET + "\n")
        sources = "".join(f"[sources.{name}]\nsecrets_file = \"{secret}\"\n" for name in FORMATS)  # generic is the last
        hook_line = f"hook = \"{hook}\"\n" if hook else ""
        with open(os.open(self.config, os.O_CREAT | os.O_WRONLY, 0o600), "w") as f:
            f.write(f"listen = [\"127.0.0.1:{self.port}\"]\nstate = \"{self.state}\"\nqueue = \"{queue}\"\n{root}\n[mattermost]\n{hook_line}{mattermost}\n{sources}{generic}\n{extra}\n{routes}")

    def start(self, wait=True):
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen(self.wrapper + [self.binary, "--config", self.config], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, start_new_session=True)
        log.close()
        if wait:
            self.wait_until_ready()
        return self

    def wait_until_ready(self, patience=60.0):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Failure(f"the notifier ended with {self.process.returncode}: {self.log()[-600:]}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.005)
        raise Failure(f"the notifier did not listen within {patience} s: {self.log()[-600:]}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, patience=60.0):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"the notifier did not end within {patience} s of SIGTERM: {self.log()[-600:]}")
        if self.process.returncode != 0:
            raise Failure(f"the notifier ended with {self.process.returncode}: {self.log()[-600:]}")

    def clean(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:
                self.stop()
        finally:
            self.clean()

    def log(self):
        try:
            with open(self.log_path, errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def request(self, method, path, body=None, headers=None, timeout=60.0):
        """(status, text) of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def post(self, source, body, headers=None, timeout=60.0):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", f"/v1/{source}", data, {"Content-Type": "application/json", "Authorization": f"Bearer {SECRET}", **(headers or {})}, timeout)

    def metrics(self):
        """name or name{labels} -> number."""
        status, text = self.request("GET", "/metrics")
        if status != 200:
            raise Failure(f"/metrics answered {status}")
        return {line.rsplit(" ", 1)[0].removeprefix("radiotower_notifier_"): float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line and line[0] != "#"}

    def command(self, *words, stdin=b"", timeout=120):
        """Runs the program with this configuration: (status, what it printed)."""
        done = subprocess.run([self.binary, "--config", self.config, *words], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, env=self.environment)
        return done.returncode, done.stdout.decode(errors="replace")

    # What Mattermost in trouble is tested with: builds of Jenkins, and waiting for what the service says of them.

    def build(self, number, status="failed", **more):
        """A build of Jenkins; its 200 is a promise."""
        code, text = self.post("jenkins", {"project": "app", "branch": "main", "status": status, "number": number, "title": f"Build {number}.", **more})
        if not 200 <= code < 300:
            raise Failure(f"build {number} was answered with {code}: {text}")

    def metric(self, name):
        return self.metrics().get(name, 0)

    def dead(self, *arguments):
        return self.command("dead", *(arguments or ("list",)))[1]

    def until(self, is_so, what, seconds=60):
        try:
            wait_for(what, is_so, seconds)
        except Failure as e:
            raise Failure(f"{e}; log: {self.log()[-1200:]}") from e

    def until_logged(self, pattern, seconds=60):
        self.until(lambda: re.search(pattern, self.log()), f"a line of the log like {pattern}", seconds)

    def until_empty(self, seconds=60):
        """Nothing waits; the gauges are some seconds old, so that the answer may be late but is never early after a post."""
        self.until(lambda: self.metric("queue_waiting") == 0 and self.metric("queue_sending") == 0, "an empty queue", seconds)


def wait_for(what, condition, patience=60.0):
    """Until `condition()` is true; its last value."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {patience} s")
        time.sleep(0.02)
