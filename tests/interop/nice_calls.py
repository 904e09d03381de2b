"""Calls of libnice with itself through a relay, over UDP and TCP: relayed candidates alone, REST credentials, a thousand datagrams there and
back. It has neither data channels nor video.

Not over TLS, for libnice 0.1.21 has none: NICE_RELAY_TYPE_TURN_TLS is plain TCP in the mode of RFC 5245, and an imitation of a handshake
(its "pseudo-SSL") in those of Google Talk and Microsoft's Communicator.
"""

import os
import shutil
import subprocess
import tempfile

import calls
from relay import Failure, rest_credential

BUILD_SECONDS = 120


def run_tool(*command):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BUILD_SECONDS)
    except FileNotFoundError:
        raise Failure(f"{command[0]} is missing: packages.txt names what to install") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"not built in {BUILD_SECONDS} s") from None
    if done.returncode != 0:
        raise Failure("not built: " + " | ".join(done.stdout.strip().splitlines()[:6]))
    return done.stdout


def build(folder):
    program = os.path.join(folder, "nice")
    flags = run_tool("pkg-config", "--cflags", "--libs", "nice").split()
    run_tool("g++", "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", os.path.join(os.path.dirname(os.path.abspath(__file__)), "nice", "main.cpp"),
             "-o", program, *flags)
    return program


def call(program, relay, transport):
    return calls.measure([program, "127.0.0.1", str(relay.port), transport, *rest_credential("nice"), str(calls.MESSAGES), str(calls.CALL_SECONDS)])


def run(make_relay, report):
    folder = tempfile.mkdtemp(prefix="interop-nice-")
    program = []
    try:
        report.case("libnice: builds", lambda: program.append(build(folder)))
        if program:
            report.with_relay("libnice", make_relay(rest=True, tls=True),
                              lambda relay: calls.report_calls(report, relay, "libnice", ("udp", "tcp"), lambda *how: call(program[0], *how),
                                                               messages="datagrams"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
