"""Starts a relay on loopback for a test, and ends it.

One seam, two relays behind it: ours, and coturn as the stand-in that tells a mistake of the test from a mistake of ours.

    with Radiotower("build/relay/daemon/radiotower-relay") as relay:
        ... relay.port, USER, PASSWORD, SECRET ...

Leaving the block sends SIGTERM and expects exit status 0 soon. Everything stays on 127.0.0.1 and ::1.
"""

import base64
import hashlib
import hmac
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

import certificates
from cases import Failure
from ports import free_port

REALM = "interop.example"
USER, PASSWORD = "tester", "correct-horse"
SECRET = "interop-secret"
START_SECONDS, STOP_SECONDS = 30.0, 10.0  # patience: a machine that compiles beside it is slow


def rest_credential(name, lifetime=3600):
    """User name and password as an application server hands them out (coturn's use-auth-secret)."""
    username = f"{int(time.time()) + lifetime}:{name}"
    digest = hmac.new(SECRET.encode(), username.encode(), hashlib.sha1).digest()
    return username, base64.b64encode(digest).decode()


def answers_binding(address, port):
    """One Binding request; True when its success response came back."""
    transaction = os.urandom(12)
    request = struct.pack("!HHI", 0x0001, 0, 0x2112A442) + transaction
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(2)  # while nobody listens the kernel says so at once
        try:
            s.connect((address, port))
            s.send(request)
            answer = s.recv(1500)
        except OSError:
            return False
    return answer[:2] == b"\x01\x01" and answer[8:20] == transaction


def write_private(path, text):
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
        f.write(text)


TLS = {"listen.certificate": '"certificate.pem"', "listen.private_key": '"key.pem"'}


def make_certificate(folder, name="turn.example.org"):
    """certificate.pem and key.pem, signed by itself, where TLS asks for them."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", f"/CN={name}",
                    "-addext", f"subjectAltName=DNS:{name}", "-keyout", "key.pem", "-out", "certificate.pem"], cwd=folder, check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.chmod(os.path.join(folder, "key.pem"), 0o600)


class Relay:
    """What both relays share: a folder, a process, a log."""

    def __init__(self, path):
        self.path = path
        self.port = free_port()
        self.namespace = None  # the network namespace it runs in; None: this one
        self.servers = {"127.0.0.1": "127.0.0.1", "::1": "::1"}  # where it listens, for a client of either address
        self.peers, self.peer_namespace = ("127.0.0.1", "::1"), None  # where a peer may stand
        self.process = None
        self.folder = None
        self.ca = None  # the file of the CA that vouches for it, when it has a certificate
        self.exit_status = None

    def command(self):
        raise NotImplementedError

    def start(self):
        self.folder = tempfile.mkdtemp(prefix="interop-relay-")
        try:
            command = self.command()
            with open(self.log_path(), "wb") as log:
                self.process = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                preexec_fn=self.namespace.enter if self.namespace else None)
            self.wait_until_it_answers()
        except BaseException:
            self.clean()
            raise

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:  # else the first failure tells more
                self.stop()
        finally:
            self.clean()

    def wait_until_it_answers(self):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Failure(f"relay ended at its start with {self.process.returncode}: {self.log().strip()[-2000:]}")
            if self.answers():
                return
            time.sleep(0.05)
        raise Failure(f"relay answers no Binding request after {START_SECONDS:.0f} s: {self.log().strip()[-2000:]}")

    def answers(self):
        return all(answers_binding(server, self.port) for server in self.servers.values())

    def stop(self):
        """SIGTERM; anything but a prompt and clean end is a failure."""
        if self.process.poll() is not None:
            raise Failure(f"relay had ended by itself with {self.process.returncode}: {self.log().strip()[-2000:]}")
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.exit_status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failure(f"relay still runs {STOP_SECONDS:.0f} s after SIGTERM") from None
        self.check_exit(time.monotonic() - began)

    def check_exit(self, seconds):
        if self.exit_status != 0:
            raise Failure(f"relay ended with {self.exit_status} {seconds:.1f} s after SIGTERM: {self.log().strip()[-2000:]}")

    def clean(self):
        """Nothing of it stays, however it ended."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_path(self):
        return os.path.join(self.folder, "log")

    def log(self):
        try:
            with open(self.log_path(), errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    congestion = ()

    def counters(self):
        """Name -> sum over the workers; a relay that cannot tell has none."""
        return {}

    def relayed_addresses(self):
        """(address, port) of every allocation made so far; a relay that does not log them has none."""
        return []

    def kernel_drops(self):
        """Datagrams the kernel threw away in front of the listeners, their queue being full."""
        drops = 0
        for table in ("udp", "udp6"):
            with open(f"/proc/{self.process.pid}/net/{table}") as f:
                for line in f.readlines()[1:]:
                    fields = line.split()
                    if int(fields[1].rpartition(":")[2], 16) == self.port:
                        drops += int(fields[-1])
        return drops


class Radiotower(Relay):
    name = "radiotower"
    # A packet the relay was asked to carry, or an answer it owed, lost for want of room. All are to be 0 here.
    congestion = ("truncated", "send_full", "send_too_large", "send_failed", "receive_failed", "dropped_user_limit",
                  "dropped_answer_limit")

    users = ()  # further lines of users_file

    def __init__(self, path, workers=2, settings=None, tls=False):
        """`settings` are further lines of the configuration, "table.key" -> TOML text, and win over the ones here. `tls`: with a certificate by a
        private CA, and TLS on `tls_port`, DTLS there too."""
        super().__init__(os.path.abspath(path))
        self.has_ca = tls
        self.tls_port = free_port() if tls else None
        self.settings = {
            "realm": f'"{REALM}"',
            "listen.udp": f'["127.0.0.1:{self.port}", "[::1]:{self.port}"]',
            "listen.tcp": f'["127.0.0.1:{self.port}", "[::1]:{self.port}"]',
            "listen.tls": "[]",
            "relay.addresses": '["127.0.0.1", "::1"]',
            "relay.ports": '"32768-65535"',
            "credentials.secrets_file": '"secrets"',
            "credentials.users_file": '"users"',
            "peers.allow": '["127.0.0.1/32 unsafe", "::1/128 unsafe"]',
            "workers.count": str(workers),
        }
        if tls:
            both = f'["127.0.0.1:{self.tls_port}", "[::1]:{self.tls_port}"]'
            self.settings.update({"listen.tcp": self.settings["listen.udp"], "listen.tls": both, "listen.dtls": both,
                                  "listen.certificate": '"certificate.pem"', "listen.private_key": '"key.pem"'})
        self.settings.update(settings or {})

    def configuration(self):
        lines, table = [], ""
        for key in sorted(self.settings, key=lambda k: ("." in k, k)):
            here, _, name = key.rpartition(".")
            if here != table:
                table = here
                lines.append(f"\n[{table}]")
            lines.append(f"{name} = {self.settings[key]}")
        return "\n".join(lines) + "\n"

    def command(self):
        write_private(os.path.join(self.folder, "secrets"), SECRET + "\n")
        write_private(os.path.join(self.folder, "users"), "".join(line + "\n" for line in (f"{USER}:{PASSWORD}", *self.users)))
        if self.has_ca:
            self.ca = certificates.make_ca(self.folder)
            certificates.issue(self.folder)
        elif "listen.certificate" in self.settings:
            make_certificate(self.folder)
        config = os.path.join(self.folder, "relay.toml")
        write_private(config, self.configuration())
        return [self.path, "--config", config]

    def reload(self, **settings):
        """Other settings, as in the constructor but with `__` for the dot, and SIGHUP. Does not wait."""
        self.settings.update({key.replace("__", "."): value for key, value in settings.items()})
        config = os.path.join(self.folder, "relay.toml")
        os.unlink(config)
        write_private(config, self.configuration())
        self.process.send_signal(signal.SIGHUP)

    def counters(self):
        """SIGUSR1 puts the counters of each worker into the log; the line about ports ends them."""
        end = time.monotonic() + 30
        while "this worker does not answer" in (text := self.counter_lines(end)) and time.monotonic() < end:
            pass
        sums = {}
        for line in text.splitlines():
            if "counters of" in line:
                for name, value in re.findall(r"\b([a-z_]+)=(\d+)\b", line):
                    sums[name] = sums.get(name, 0) + int(value)
        return sums

    def counter_lines(self, end):
        before = len(self.log())
        self.process.send_signal(signal.SIGUSR1)
        while time.monotonic() < end:
            text = self.log()[before:]
            if re.search(r"counters of ports.*\n", text):
                return text
            time.sleep(0.05)
        raise Failure("relay wrote no counters 30 s after SIGUSR1")

    def relayed_addresses(self):
        made = re.findall(r'allocation made.*? relayed="?\[?([0-9a-f.:]+?)\]?:(\d+)"? ', self.log())
        return [(address, int(port)) for address, port in made]


class Coturn(Relay):
    name = "coturn"

    def __init__(self, path, rest=False, tls=False):
        """`rest`: its clients come with REST credentials, else with the user's password; coturn cannot have both."""
        super().__init__(path)
        self.tls_port = free_port() if tls else None
        self.rest = ["--use-auth-secret", "--static-auth-secret", SECRET] if rest else []

    def command(self):
        streams = ["--no-tls", "--no-dtls", "--no-tcp"]
        if self.tls_port:
            self.ca = certificates.make_ca(self.folder)
            certificates.issue(self.folder)
            streams = ["--tls-listening-port", str(self.tls_port), "--cert", "certificate.pem", "--pkey", "key.pem"]
        return [self.path, "-n", "--no-cli", *streams, "--no-rfc5780", "--simple-log",
                "--log-file", "stdout", "--pidfile", os.path.join(self.folder, "pid"), "--userdb", os.path.join(self.folder, "db"),
                "-L", "127.0.0.1", "-L", "::1", "-E", "127.0.0.1", "-E", "::1", "-p", str(self.port), "-m", "2",
                "--min-port", "32768", "--max-port", "65535", "--allow-loopback-peers", "-r", REALM, "-a",
                "-u", f"{USER}:{PASSWORD}", *self.rest]

    def check_exit(self, seconds):
        pass  # its exit status is not ours to judge
