"""Calls of aiortc with itself through a relay, over UDP, TCP and TLS: relayed candidates alone, REST credentials, video and a data channel.

It is Debian's, and runs with Debian's Python (see aiortc_call.py). Over TLS it trusts what OpenSSL does; the file of that, SSL_CERT_FILE, is the
private CA.
"""

import os

import calls
from relay import rest_credential

PYTHON = "/usr/bin/python3"
FRAMES_AT_LEAST = 61  # of 160 at 20 a second: encoder and decoder share their cores with others


def call(relay, transport):
    username, credential = rest_credential("aiortc")
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "aiortc_call.py")
    command = [PYTHON, "-B", program, "--url", calls.url_of(relay, transport), "--username", username, "--credential", credential,
               "--messages", str(calls.MESSAGES), "--video", str(calls.VIDEO_SECONDS), "--timeout", str(calls.CALL_SECONDS)]
    return calls.measure(command, {**os.environ, "SSL_CERT_FILE": relay.ca, "SSL_CERT_DIR": relay.folder + "/none"})


def run(make_relay, report):
    report.with_relay("aiortc", make_relay(rest=True, tls=True),
                      lambda relay: calls.report_calls(report, relay, "aiortc", calls.TRANSPORTS, call, frames_at_least=FRAMES_AT_LEAST))
