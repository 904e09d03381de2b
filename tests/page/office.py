"""An office of two network namespaces: the tower, where the relay and `radiotower page` run, and a phone, which is a browser without a head.

    phone  eth0 192.168.0.31 ---- 192.168.0.105 lan  tower

No packet leaves them.
"""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import browser
from cases import Failure
from namespaces import Namespace
from relay import SECRET, Radiotower, free_port, write_private

TOWER, PHONE = "192.168.0.105", "192.168.0.31"
PAGE_SECONDS = 75


class Office:
    """`name` tells it from others of this test."""

    def __init__(self, name):
        self.tower, self.phone = Namespace(f"{name}-tower"), Namespace(f"{name}-phone")
        self.tower.ip("link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", self.phone.name)
        for place, address, link in ((self.tower, TOWER, "lan"), (self.phone, PHONE, "eth0")):
            place.ip("link", "set", "lo", "up")
            place.ip("addr", "add", f"{address}/24", "dev", link)
            place.ip("link", "set", link, "up")
        self.phone.ip("route", "add", "default", "dev", "eth0")  # Firefox gathers nothing where there is no way out

    @contextlib.contextmanager
    def silently_dropped(self, ports):
        """What the phone sends to these ports of the tower never arrives, over UDP and TCP."""
        wanted = ", ".join(str(port) for port in ports)
        for words in (["add", "table", "inet", "wall"], ["add", "chain", "inet", "wall", "in", "{ type filter hook input priority 0; }"],
                      ["add", "rule", "inet", "wall", "in", "meta", "l4proto", "{ tcp, udp }", "th", "dport", f"{{ {wanted} }}", "drop"]):
            self.tower.do("nft", *words)
        try:
            yield
        finally:
            self.tower.do("nft", "delete", "table", "inet", "wall")


class OfficeRelay(Radiotower):
    """Ours, at the tower's address, with a certificate that `radiotower certificate` makes."""

    def __init__(self, path, tool, office, settings=None, certificate_for=("--address", TOWER), ports=None):
        self.port, self.tls_port = ports or (free_port(), free_port())
        at, tls = f'["{TOWER}:{self.port}"]', f'["{TOWER}:{self.tls_port}"]'
        chosen = {"port": self.port, "tls_port": self.tls_port}
        super().__init__(path, workers=1, settings={
            "listen.udp": at, "listen.tcp": at, "listen.tls": tls, "listen.certificate": '"chain.pem"', "listen.private_key": '"key.pem"',
            "relay.addresses": f'["{TOWER}"]', "peers.allow": "[]", **(settings or {})})
        self.__dict__.update(chosen)
        self.tool, self.namespace, self.certificate_for = tool, office.tower, certificate_for
        self.servers = {TOWER: TOWER}

    def answers(self):
        """Asked from where it is: the test itself stands in no office."""
        with open(self.log_path(), errors="replace") as log:
            return "ready:" in log.read()

    def command(self):
        command = super().command()  # makes a key of its own, whose place ours takes
        done = subprocess.run([self.tool, "certificate", "--make-ca", "Office CA", "--no-passphrase", "--force", "--out", self.folder, *self.certificate_for],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise Failure(f"radiotower certificate: {done.stdout.strip()}")
        self.ca = os.path.join(self.folder, "ca.pem")
        return command


class Page:
    """`radiotower page --once --json` in the tower's namespace."""

    def __init__(self, tool, office, folder, *flags):
        secrets = os.path.join(folder, f"secrets-{os.urandom(4).hex()}")
        write_private(secrets, SECRET + "\n")
        self.command = [tool, "page", "--listen", f"{TOWER}:0", "--once", "--json", "--seconds", str(PAGE_SECONDS), *flags]
        if "--secret-file" not in flags:
            self.command += ["--secret-file", secrets]
        self.office = office

    def __enter__(self):
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors, text=True,
                                        preexec_fn=self.office.tower.enter)
        self.lines = queue.Queue()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()
        self.url = self.next_line(60)["page"]
        return self

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def next_line(self, seconds):
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            raise Failure(f"radiotower page says nothing for {seconds:.0f} s") from None
        if not line:
            self.errors.seek(0)
            raise Failure(f"radiotower page ended: {self.errors.read().decode(errors='replace').strip()[-300:]}")
        return json.loads(line)

    def results(self):
        """url -> its line, and the line that ends it."""
        found, end = {}, time.monotonic() + PAGE_SECONDS
        while True:
            line = self.next_line(max(end - time.monotonic(), 0.1))
            if line.get("complete"):
                return found, line
            found[line["url"]] = line

    def exit_code(self):
        return self.process.wait(60)

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.thread.join()
        self.process.stdout.close()
        self.errors.close()


@contextlib.contextmanager
def phone(office, kind, ca, url, *flags):
    """A browser that opens the page, in the phone's namespace, in a process group of its own."""
    folder = tempfile.mkdtemp(prefix="page-phone-")
    environment = {**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder, "XDG_CACHE_HOME": folder, "MOZ_DISABLE_CONTENT_SANDBOX": "1"}
    command = [word.replace("EXCLUDE 127.0.0.1", f"EXCLUDE {TOWER}") for word in kind(folder, ca)]
    try:
        with open(f"{folder}/log", "wb+") as log:
            process = subprocess.Popen([*command, *flags, url], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                                       start_new_session=True, preexec_fn=office.phone.enter)
            try:
                yield folder
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tested(office, tool, kind, ca, folder, *flags):
    """What a browser finds: url -> line, the last line, the tool's exit code."""
    with Page(tool, office, folder, *flags) as page, phone(office, kind, ca, page.url):
        found, last = page.results()
        return found, last, page.exit_code()


def firefox(folder, ca):
    """One that knows the tower by its name, too: it takes turns: with no address."""
    command = browser.firefox(folder, ca)
    with open(f"{folder}/profile/user.js", "a") as out:
        out.write(f'user_pref("network.dns.forceResolve", "{TOWER}");\n')
    return command


BROWSERS = {"chromium": browser.chromium, "firefox": firefox}
