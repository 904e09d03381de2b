"""A host of a test's own for `radiotower doctor`: two network namespaces, a folder with a configuration that is good, a relay of a user of its own.

    office  eth0 10.77.0.2 ---- 10.77.0.1 lan  tower

What a test breaks, it breaks in a copy: a new Patient each. Sysctls of the whole machine are covered by files for the doctor alone.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

from cases import Failure
from namespaces import Namespace

PHONES = "10.77.0.1"
MEDIA = "10.77.0.2:8443"
UID = 64711  # nobody of this machine
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
COVERED = {"net/core/rmem_max": "8388608", "net/netfilter/nf_conntrack_max": "262144", "net/netfilter/nf_conntrack_count": "100"}

CA_CONFIG = """[ca]
default_ca = it
[it]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
"""


def openssl(folder, *words):
    done = subprocess.run(["openssl", *words], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=120)
    if done.returncode != 0:
        raise Failure(f"openssl {words[0]}: {done.stdout.strip()[-300:]}")


def stamp(days):
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + days * 86400))


class Office:
    """A root CA, a CA below it, and certificates of the latter."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="doctor-ca-")
        self.path = lambda name: os.path.join(self.folder, name)
        for name, text in (("ca.cnf", CA_CONFIG), ("index.txt", ""), ("serial", "1000\n")):
            with open(self.path(name), "w") as out:
                out.write(text)
        for root in ("root", "other"):
            openssl(self.folder, "req", "-x509", *KEY, "-keyout", f"{root}.key", "-out", f"{root}.pem", "-days", "400", "-subj", f"/CN=Office {root}",
                    "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self.sign("middle", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n", by="root", subject="Office middle")

    def sign(self, name, extensions, by="middle", subject="tower.lan", days=(-1, 300), key=KEY, digest="sha256"):
        """NAME.pem and NAME.key."""
        openssl(self.folder, "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={subject}")
        with open(self.path(f"{name}.ext"), "w") as out:
            out.write(extensions)
        openssl(self.folder, "ca", "-batch", "-notext", "-config", "ca.cnf", "-cert", f"{by}.pem", "-keyfile", f"{by}.key", "-in", f"{name}.csr",
                "-out", f"{name}.pem",
                "-extfile", f"{name}.ext", "-startdate", stamp(days[0]), "-enddate", stamp(days[1]), "-md", digest)

    def server(self, name, names=f"IP:{PHONES},DNS:tower.lan", usage="serverAuth", **rest):
        self.sign(name, f"subjectAltName={names}\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n", **rest)
        return name

    def alone(self, name):
        """Signed by itself."""
        openssl(self.folder, "req", "-x509", *KEY, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "300", "-subj", f"/CN={PHONES}",
                "-addext", f"subjectAltName=IP:{PHONES}")

    def text(self, *names):
        texts = []
        for name in names:
            with open(self.path(name)) as source:
                texts.append(source.read())
        return "".join(texts)

    def clean(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class Ward:
    """The namespaces, and what is made once."""

    def __init__(self, tool, relay):
        self.relay = os.path.abspath(relay)
        self.office = Office()
        # Where anybody may run it from.
        os.chmod(self.office.folder, 0o755)
        self.tool = shutil.copy(tool, self.office.path("radiotower"))
        self.office.server("good")
        self.tower, self.lan = Namespace("tower"), Namespace("office")
        self.tower.ip("link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", self.lan.name)
        self.tower.ip("link", "set", "lo", "up")
        self.tower.ip("addr", "add", f"{PHONES}/24", "dev", "lan")
        self.tower.ip("link", "set", "lan", "up")
        self.lan.ip("addr", "add", "10.77.0.2/24", "dev", "eth0")
        self.lan.ip("link", "set", "eth0", "up")
        self.give()
        self.tower.sysctl("net/ipv4/conf/lan/rp_filter", 0)

    def give(self, ports="16384 32767", reserved=""):
        """What the tower gives to programs that ask for no port of their own."""
        self.tower.sysctl("net/ipv4/ip_local_port_range", ports)
        self.tower.sysctl("net/ipv4/ip_local_reserved_ports", reserved)

    def clean(self):
        self.office.clean()


class Patient:
    """A configuration that is good, in a folder of its own; `settings`: "table.key" -> TOML text, None takes one out."""

    def __init__(self, ward, settings=None, certificate="good", chain=("middle",)):
        self.ward = ward
        self.process, self.others = None, []
        self.folder = tempfile.mkdtemp(prefix="doctor-")
        self.path = lambda name: os.path.join(self.folder, name)
        os.chmod(self.folder, 0o755)
        self.write("secrets", "kq3vS0u8hJ6Yx2b1Wm9RtZ4cE7pLfDnA\n")
        self.write("chain.pem", ward.office.text(f"{certificate}.pem", *(f"{name}.pem" for name in chain)))
        self.write("key.pem", ward.office.text(f"{certificate}.key"))
        self.settings = {
            "listen.udp": '["0.0.0.0:3478"]', "listen.tcp": '["0.0.0.0:3478"]', "listen.tls": '["0.0.0.0:5349"]',
            "listen.certificate": '"chain.pem"', "listen.private_key": '"key.pem"', "credentials.secrets_file": '"secrets"',
            "relay.addresses": f'["{PHONES}"]', "peers.allow": f'["{MEDIA}"]', "workers.count": "1",
        }
        self.settings.update(settings or {})
        self.configure()
        self.covers = dict(COVERED)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (self.process, *self.others):
            if process and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, name, text, mode=0o640, owner=(0, UID)):
        with open(self.path(name), "w") as out:
            out.write(text)
        os.chmod(self.path(name), mode)
        os.chown(self.path(name), *owner)
        return self.path(name)

    def configure(self, **changes):
        self.settings.update({key.replace("__", "."): value for key, value in changes.items()})
        lines, table = [], ""
        for key in sorted((k for k in self.settings if self.settings[k] is not None), key=lambda k: ("." in k, k)):
            here, _, name = key.rpartition(".")
            if here != table:
                table = here
                lines.append(f"[{table}]")
            lines.append(f"{name} = {self.settings[key]}")
        self.write("relay.toml", "\n".join(lines) + "\n")

    def start(self, before=None, file="relay.toml", flags=None):
        """The relay in the tower, as its user."""
        def become():
            self.ward.tower.enter()
            if before:
                before()
            os.setgroups([])
            os.setgid(UID)
            os.setuid(UID)

        with open(self.path("log"), "wb") as log:
            self.process = subprocess.Popen([self.ward.relay, *(flags or ("--config", self.path(file)))], cwd=self.folder, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, preexec_fn=become)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with open(self.path("log"), errors="replace") as log:
                said = log.read()
            if " ready" in said:
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise Failure(f"the relay does not start: {said.strip()[-500:]}")

    def other(self, *command):
        """Another program in the tower, which runs until the end."""
        with open(self.path("other-log"), "wb") as log:
            self.others.append(subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                preexec_fn=self.ward.tower.enter))
        return self.others[-1]

    def ask(self, options, user=f"{UID}:{UID}", before=None, json_too=True, as_somebody=False):
        """The doctor, as root in the tower. Exit code and what it printed."""
        covers = ""
        for number, (key, value) in enumerate(self.covers.items()):
            with open(self.path(f"cover-{number}"), "w") as out:
                out.write(value + "\n")
            covers += f"[ ! -e /proc/sys/{key} ] || mount --bind {self.path(f'cover-{number}')} /proc/sys/{key}; "
        leave = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups"] if as_somebody else []
        options = {"--config": self.path("relay.toml"), **options}
        command = [self.ward.tool, "doctor", *(("--user", user) if user else ()), *(("--json",) if json_too else ()),
                   *(word for name, value in options.items() if value is not None for word in (name, value))]
        done = subprocess.run(["ip", "netns", "exec", self.ward.tower.name, "sh", "-c", covers + 'exec "$@"', "sh", *leave, *command],
                              capture_output=True, text=True, timeout=180, preexec_fn=before,
                              env={**os.environ, "NO_COLOR": "1"})
        if done.returncode not in (0, 1, 3):
            raise Failure(f"the doctor ends with {done.returncode}: {done.stderr.strip()[-400:]}")
        return done.returncode, json.loads(done.stdout) if json_too else done.stdout

    def usual(self):
        return {"--address": PHONES, "--ca": self.ward.office.path("root.pem"), "--name": "tower.lan", "--media-server": MEDIA}
