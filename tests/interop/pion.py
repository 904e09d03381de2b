"""Calls of pion with itself through a relay, over UDP, TCP, TLS and DTLS: relayed candidates alone, REST credentials, video and a data
channel. Over TLS and DTLS it trusts what the system does; the file of that, SSL_CERT_FILE, is the private CA.

Built with Debian's Go from Debian's packages of pion, without a network: GOPATH mode reads them where they are installed. The
first build compiles pion too and takes a quarter of a minute; Go's cache makes the next one quick.
"""

import os
import shutil
import subprocess
import tempfile

import calls
from relay import Failure, rest_credential

GO, PACKAGES = "/usr/bin/go", "/usr/share/gocode"
BUILD_SECONDS = 900
FRAMES_AT_LEAST = 150  # of 200


def build(folder):
    """In GOPATH mode the suffix /v3 of an import is understood only inside a GOPATH and beside a go.mod."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pion")
    package = os.path.join(folder, "src", "radiotower.example", "interop", "pion")
    os.makedirs(package)
    for name in ("go.mod", "main.go"):
        shutil.copy(os.path.join(source, name), package)
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{folder}:{PACKAGES}", "GOFLAGS": "", "CGO_ENABLED": "0"}
    environment.pop("GOROOT", None)
    if not {"GOCACHE", "XDG_CACHE_HOME", "HOME"} & environment.keys():
        environment["GOCACHE"] = os.path.join(folder, "cache")
    program = os.path.join(folder, "pion")
    try:
        done = subprocess.run([GO, "build", "-o", program, "."], cwd=package, env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BUILD_SECONDS)
    except FileNotFoundError:
        raise Failure(f"{GO} is missing: packages.txt names what to install") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"not built in {BUILD_SECONDS} s") from None
    if done.returncode != 0:
        raise Failure("not built: " + " | ".join(done.stdout.strip().splitlines()[:6]))
    return program


def call(program, relay, transport):
    username, credential = rest_credential("pion")
    command = [program, "-url", calls.url_of(relay, transport), "-username", username, "-credential", credential,
               "-messages", str(calls.MESSAGES), "-video", f"{calls.VIDEO_SECONDS}s", "-timeout", f"{calls.CALL_SECONDS}s"]
    return calls.measure(command, {**os.environ, "SSL_CERT_FILE": relay.ca, "SSL_CERT_DIR": relay.folder + "/none"})


def run(make_relay, report):
    folder = tempfile.mkdtemp(prefix="interop-pion-")
    program = []
    try:
        report.case("pion: builds from Debian's packages", lambda: program.append(build(folder)))
        if program:
            transports = (*calls.TRANSPORTS, "dtls")
            report.with_relay("pion", make_relay(rest=True, tls=True),
                              lambda relay: calls.report_calls(report, relay, "pion", transports, lambda *how: call(program[0], *how),
                                                               frames_at_least=FRAMES_AT_LEAST))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
