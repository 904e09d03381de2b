"""The programs under test, and the load generator that drives each of them."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time

from . import network
from .processes import start, stop

REALM, USER, PASSWORD = "bench", "bench", "a-password-of-the-bench"
FIRST_RELAY_PORT, RELAY_PORTS = 32768, 32768


class Server:
    """One program. `slot` of `slots` keeps ports apart when several live at the same time."""

    needs_user = True

    def __init__(self, name, options, net, slot=0, slots=1):
        self.name, self.options, self.net, self.slot = name, options, net, slot
        self.port = options.port + slot
        width = RELAY_PORTS // slots
        self.ports = (FIRST_RELAY_PORT + slot * width, FIRST_RELAY_PORT + (slot + 1) * width - 1)
        self.folder = os.path.join(options.work, f"{re.sub('[^A-Za-z0-9_.-]', '_', name)}-{slot}")
        self.process = None

    @property
    def pid(self):
        return self.process.pid if self.process else 0

    def command(self):
        raise NotImplementedError

    def start(self):
        os.makedirs(self.folder, exist_ok=True)
        with open(self.output(), "wb") as log:
            self.process = start(self.command(), self.options.server_core, self.options.nice, self.net.tower, cwd=self.folder,
                                 stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not self._is_listening():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.name} does not listen on port {self.port}:\n{self.said()[-3000:]}")
            time.sleep(0.03)
        return self

    def output(self):
        return os.path.join(self.folder, "output")

    def said(self):
        with open(self.output(), errors="replace") as output:
            return output.read()

    def _is_listening(self):
        wanted = f":{self.port:04X} "
        try:
            with open(f"/proc/{self.pid}/net/udp") as sockets:  # of its own network namespace
                return any(wanted in line for line in sockets)
        except OSError:
            return False

    def stop(self):
        if self.process:
            stop(self.process)
            self.process = None

    def version(self):
        return None

    def received(self):
        """How many datagrams the program itself has received; None: it does not tell."""
        return None


class Radiotower(Server):
    def __init__(self, name, options, net, slot=0, slots=1, backend="io_uring", offload=False):
        super().__init__(name, options, net, slot, slots)
        self.backend, self.offload = backend, offload

    def command(self):
        users, config = os.path.join(self.folder, "users"), os.path.join(self.folder, "relay.toml")
        with open(os.open(users, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(f"{USER}:{PASSWORD}\n")
        allowed = "127.0.0.1/32 unsafe" if self.net.listen == "127.0.0.1" else "10.82.0.1"
        with open(config, "w") as out:
            out.write(f"""realm = "{REALM}"
[listen]
udp = ["{self.net.listen}:{self.port}"]
tcp = ["{self.net.listen}:{self.port}"]
[relay]
addresses = ["{self.net.relay}"]
ports = "{self.ports[0]}-{self.ports[1]}"
[credentials]
users_file = "users"
[peers]
allow = ["{allowed}"]
[limits]
error_answers_per_second = 0
binding_answers_per_second = 0
[workers]
count = 1
backend = "{self.backend}"
""")
            if self.offload:
                out.write(f"[offload]\nxdp = {json.dumps(self.net.interfaces)}\n")
        return [self.options.relay, "--config", config]

    def _is_listening(self):
        return " ready: " in self.said()  # later than its sockets: the program has to be attached

    def version(self):
        return first_line([self.options.relay, "--version"])

    def received(self):
        before = self.said().count("counters of ports")
        os.kill(self.pid, signal.SIGUSR1)
        deadline = time.monotonic() + 30
        while self.said().count("counters of ports") == before and time.monotonic() < deadline:
            time.sleep(0.02)
        found = re.findall(r"counters of loop:.*? received=(\d+)", self.said())
        return int(found[-1]) if found else None


class Coturn(Server):
    def command(self):
        # One relay thread, as many as the core it gets. Without --verbose it prints nothing for an allocation or a packet.
        return [
            self.options.coturn, "-n", "--no-tls", "--no-dtls", "--no-tcp", "--no-tcp-relay", "--no-cli", "--no-rfc5780",
            "--lt-cred-mech", f"--user={USER}:{PASSWORD}", f"--realm={REALM}", f"--listening-ip={self.net.listen}",
            f"--listening-port={self.port}", f"--relay-ip={self.net.relay}", "--allow-loopback-peers",
            f"--min-port={self.ports[0]}", f"--max-port={self.ports[1]}", "-m", str(self.options.coturn_threads),
            "--log-file=/dev/null", "--simple-log", "--no-stdout-log", f"--pidfile={self.folder}/pid",
            f"--userdb={self.folder}/turndb",
        ]

    def version(self):
        return first_line([self.options.coturn, "--version"])


class Floor(Server):
    """bench/floor: forwards with no checks at all, so that what a relay costs beyond the kernel's share is seen. It has the credentials
    for the integrity of its answers alone."""

    def command(self):
        return [self.options.floor, "--mode", self.name.removeprefix("floor-"), "--listen", f"{self.net.listen}:{self.port}",
                "--relay", self.net.relay, "--ports", f"{self.ports[0]}-{self.ports[1]}", "--user", USER, "--password", PASSWORD,
                "--realm", REALM]


class Other(Server):
    """Any server, by the command line that was given with --server NAME=COMMAND."""

    def command(self):
        words = {"port": self.port, "listen": self.net.listen, "relay": self.net.relay, "user": USER, "password": PASSWORD,
                 "realm": REALM, "min_port": self.ports[0], "max_port": self.ports[1], "folder": self.folder}
        return [word.format(**words) for word in shlex.split(self.options.others[self.name])]


class Direct(Server):
    """No server: packets go from client to peer, through the forwarding of the tower where there is one."""

    def start(self):
        return self


FLOOR_MODES = ("recvfrom", "recvmmsg", "recvmmsg-gro", "io_uring", "io_uring-gro")


def make(name, options, net, slot=0, slots=1):
    if name in options.others:
        return Other(name, options, net, slot, slots)
    if name == "radiotower":
        return Radiotower(name, options, net, slot, slots, offload=options.offload)
    if name == "radiotower-epoll":
        return Radiotower(name, options, net, slot, slots, backend="epoll", offload=options.offload)
    if name == "coturn":
        return Coturn(name, options, net, slot, slots)
    if name == "direct":
        return Direct(name, options, net, slot, slots)
    return Floor(name, options, net, slot, slots)


def known(options):
    """The servers that can be started here, in the order in which they are shown."""
    names = ["radiotower", "radiotower-epoll"]
    if shutil.which(options.coturn):
        names.append("coturn")
    names += options.others
    if os.access(options.floor, os.X_OK):
        names += [f"floor-{mode}" for mode in FLOOR_MODES]
    return names + ["direct"]


class Load:
    """`radiotower load --control` for one server: commands go in, JSON comes out."""

    def __init__(self, server, sessions, trains=False, method="channel"):
        options = server.options
        flags = ["--sessions", str(sessions), "--method", method, "--window", str(options.window), "--peer-count", "4",
                 "--clients-per-address", str(network.CLIENTS_PER_ADDRESS), *server.net.load_flags(server.slot)]
        if trains:
            flags.append("--receive-trains")
        if isinstance(server, Direct):
            flags.append("--direct")
        else:
            flags += [f"turn:{server.net.listen}:{server.port}", "--user", USER, "--password", PASSWORD, "--pid", str(server.pid)]
        self.name, self.sessions = server.name, sessions
        self.process = start([options.tool, "load", "--control", *flags], options.load_core, options.nice,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, command):
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the load on {self.name} has ended at \"{command}\" (exit status {self.process.wait()})")
        return json.loads(line)

    def begin(self):
        """Sets up every session and sees that each relays both ways."""
        set_up, verified = self("set-up"), self("verify")
        if set_up["ready"] != self.sessions or min(verified["to_peer"], verified["to_client"]) != self.sessions:
            raise SystemExit(f"{self.name}: not all of {self.sessions} sessions relay: {set_up} {verified}")
        return self

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait()
        stop(self.process)


def first_line(command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10, text=True, check=False)
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        return (lines or ["?"])[0]
    except (OSError, subprocess.TimeoutExpired):
        return "?"
