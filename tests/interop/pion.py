"""A call of pion with itself through a relay: relayed candidates alone, REST credentials, video and a data channel.

Built with Debian's Go from Debian's packages of pion, without a network: GOPATH mode reads them where they are installed. The
first build compiles pion too and takes a quarter of a minute; Go's cache makes the next one quick.
"""

import json
import os
import shutil
import subprocess
import tempfile

from relay import Failure, rest_credential

GO, PACKAGES = "/usr/bin/go", "/usr/share/gocode"
MESSAGES, VIDEO_SECONDS, CALL_SECONDS, TIMEOUT_SECONDS, BUILD_SECONDS = 1000, 8, 20, 40, 240
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


def call(program, relay):
    username, credential = rest_credential("pion")
    command = [program, "-url", f"turn:127.0.0.1:{relay.port}?transport=udp", "-username", username, "-credential", credential,
               "-messages", str(MESSAGES), "-video", f"{VIDEO_SECONDS}s", "-timeout", f"{CALL_SECONDS}s"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=TIMEOUT_SECONDS)
        result = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise Failure(f"not done after {TIMEOUT_SECONDS} s") from None
    except ValueError:
        raise Failure(f"exit status {done.returncode}: {done.stderr.strip()[-500:]}") from None
    if result.get("error"):
        raise Failure(f"{result['error']}: {done.stderr.strip()[-500:]}")
    return result


def check_connected(result):
    if result["pairs"] != ["relay/relay", "relay/relay"]:
        raise Failure(f"selected {result['pairs']}")
    return "relay/relay"


def check_messages(result):
    numbers = f"{result['echoed']} of {MESSAGES} echoed, {result['altered']} altered"
    if result["echoed"] != MESSAGES or result["altered"]:
        raise Failure(numbers)
    return numbers


def check_video(result):
    numbers = (f"{result['frames_received']} of {result['frames_sent']} frames, {result['packets_received']} packets, "
               f"{result['packets_lost']} lost")
    if result["frames_received"] < FRAMES_AT_LEAST or result["packets_lost"]:
        raise Failure(numbers)
    return numbers


def run(make_relay, report):
    folder = tempfile.mkdtemp(prefix="interop-pion-")
    program, result = [], {}

    def connects(relay):
        result.update(call(program[0], relay))
        return check_connected(result)

    def cases(relay):
        report.case("pion: connects by relay only", lambda: connects(relay))
        if result:
            report.case("pion: data channel", lambda: check_messages(result))
            report.case("pion: video", lambda: check_video(result))

    try:
        report.case("pion: builds from Debian's packages", lambda: program.append(build(folder)))
        if program:
            report.with_relay("pion", make_relay(rest=True), cases)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
