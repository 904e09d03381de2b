"""The control socket of a relay, for tests: JSON lines (docs/control.md)."""

import json
import os
import socket

from cases import Failure
from relay import Radiotower

SETTINGS = {"control.socket": '"control.sock"'}


def path_of(relay):
    return os.path.join(relay.folder, "control.sock")


class Controlled(Radiotower):
    """Has a control socket, which is there once it is ready; listeners answer a moment before."""

    def __init__(self, path, settings=None, workers=2, tls=True):
        super().__init__(path, workers, {**SETTINGS, **(settings or {})}, tls)

    def answers(self):
        return " ready: " in self.log() and super().answers()


class Control:
    def __init__(self, relay, patience=30.0):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(patience)
        self.socket.connect(path_of(relay))
        self.got = b""
        self.number = 0

    def line(self, patience=None):
        """The next line; None: the relay has hung up."""
        if patience is not None:
            self.socket.settimeout(patience)
        while b"\n" not in self.got:
            data = self.socket.recv(1 << 16)
            if not data:
                return None
            self.got += data
        line, _, self.got = self.got.partition(b"\n")
        return json.loads(line)

    def send(self, command, **fields):
        self.number += 1
        self.socket.sendall(json.dumps({"command": command, "id": self.number, **fields}).encode() + b"\n")

    def ask(self, command, **fields):
        """What came before the last line, and the last line, which has an `ok`."""
        self.send(command, **fields)
        rows = []
        while True:
            line = self.line()
            if line is None:
                raise Failure(f"hung up on {command}")
            if line.pop("id", None) != self.number:
                raise Failure(f"an answer to something else: {line}")
            if "ok" in line:
                return rows, line
            rows.append(line)

    def must(self, command, **fields):
        rows, last = self.ask(command, **fields)
        if last["ok"] is not True:
            raise Failure(f"{command}: {last}")
        return rows if command == "sessions" else last

    def refused(self, command, **fields):
        """The sentence."""
        _, last = self.ask(command, **fields)
        if last["ok"] is not False or len(last["error"]) < 10:
            raise Failure(f"{command} {fields}: {last}")
        return last["error"]

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
