"""Starts a radiotower-notifier on loopback for a test, speaks to it as a CI system, and ends it."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from cases import Failure

SECRET = "test-secret-of-jenkins"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Notifier:
    """Leaving the block sends SIGTERM and expects exit status 0. `settings`: lines of TOML, as {section: text}."""

    def __init__(self, path, hook, ca_file=None, settings=None, state=None):
        self.path, self.port, self.process = path, free_port(), None
        self.folder = tempfile.mkdtemp(prefix="notifier-test-")
        self.state = state or os.path.join(self.folder, "state")
        os.makedirs(self.state, mode=0o700, exist_ok=True)
        sections = {"mattermost": f'hook = "{hook}"\n' + (f'ca_file = "{ca_file}"\n' if ca_file else "") + "timeout_seconds = 15\n",
                    "flood": "channel_posts_per_minute = 6000\nchannel_burst = 1000\nposts_per_second = 1000\nburst = 1000\n",
                    "sources.jenkins": 'secrets_file = "secret"\n'}
        sections.update(settings or {})
        self.write("secret", SECRET + "\n")
        self.config = self.write("notifier.toml", f'listen = ["127.0.0.1:{self.port}"]\nstate = "{self.state}"\n'
                                 + "".join(f"[{name}]\n{text}" for name, text in sections.items())
                                 + '[[route]]\nchannel = "builds"\n')

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(text)
        return path

    def start(self):
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.process = subprocess.Popen([self.path, "--config", self.config], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.until(lambda: self.process.poll() is not None or self.get("/healthz")[0] == 200, "it answers", 10)
        if self.process.poll() is not None:
            raise Failure(f"ended at its start with {self.process.returncode}: {self.log()[-1500:]}")
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:
                self.stop()
        finally:
            self.kill()
            shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self, seconds=25):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(seconds)
        if status != 0:
            raise Failure(f"ended with {status}: {self.log()[-1500:]}")

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def get(self, path):
        try:
            return self.request("GET", path)
        except OSError:
            return 0, ""

    def build(self, number, status="failed", **more):
        """A build of Jenkins; its 200 is a promise."""
        body = {"project": "app", "branch": "main", "status": status, "number": number, "title": f"Build {number}.", **more}
        code, text = self.request("POST", "/v1/jenkins", json.dumps(body), {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"})
        if not 200 <= code < 300:
            raise Failure(f"build {number} was answered with {code}: {text}")

    def metric(self, name):
        """Of radiotower_notifier_NAME; with labels as in the text."""
        _, text = self.get("/metrics")
        found = re.search(r"(?m)^radiotower_notifier_" + re.escape(name) + r" (\S+)$", text)
        return float(found.group(1)) if found else 0

    def log(self):
        with open(os.path.join(self.folder, "log"), errors="replace") as f:
            return f.read()

    def dead(self, *arguments):
        done = subprocess.run([self.path, "--config", self.config, "dead", *(arguments or ("list",))], capture_output=True, text=True, timeout=20)
        return done.stdout

    def until(self, is_so, what, seconds=15):
        end = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() >= end:
                raise Failure(f"after {seconds} s not yet: {what}; log: {self.log()[-1200:]}")
            time.sleep(0.05)

    def until_logged(self, pattern, seconds=15):
        self.until(lambda: re.search(pattern, self.log()), f"a line of the log like {pattern}", seconds)

    def until_empty(self, seconds=20):
        """Nothing waits; the gauges are some seconds old, so that the answer may be late but is never early after a post."""
        self.until(lambda: self.get("/metrics")[1].find("queue_waiting 0\n") >= 0 and self.metric("queue_sending") == 0, "an empty queue", seconds)
