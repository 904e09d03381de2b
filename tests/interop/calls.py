"""What the calls of libraries have in common: a program makes a call with itself by relayed candidates alone and prints what it measured as
JSON; the judgement is made here."""

import concurrent.futures
import json
import subprocess

from relay import Failure

MESSAGES, VIDEO_SECONDS, CALL_SECONDS, TIMEOUT_SECONDS = 1000, 8, 60, 150
TRANSPORTS = ("udp", "tcp", "tls")
AT_A_TIME = 2


def url_of(relay, transport):
    if transport in ("tls", "dtls"):
        return f"turns:127.0.0.1:{relay.tls_port}?transport={'tcp' if transport == 'tls' else 'udp'}"
    return f"turn:127.0.0.1:{relay.port}?transport={transport}"


def measure(command, environment=None):
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              errors="replace", timeout=TIMEOUT_SECONDS)
        result = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise Failure(f"not done after {TIMEOUT_SECONDS} s") from None
    except ValueError:
        raise Failure(f"exit status {done.returncode}: {done.stderr.strip()[-500:]}") from None
    if result.get("error"):
        raise Failure(f"{result['error']}: {done.stderr.strip()[-500:]}")
    return result


def check_connected(result, transport):
    """`transports`: what each end says it has to the relay, where the library can tell."""
    transports = result.get("transports")
    if result["pairs"] != ["relay/relay", "relay/relay"] or transports not in (None, [transport] * 2):
        raise Failure(f"selected {result['pairs']} over {transports}")
    return "relay/relay"


def check_messages(result):
    numbers = f"{result['echoed']} of {MESSAGES} echoed, {result['altered']} altered"
    if result["echoed"] != MESSAGES or result["altered"]:
        raise Failure(numbers)
    return numbers


def check_video(result, at_least):
    numbers = (f"{result['frames_received']} of {result['frames_sent']} frames, {result['packets_received']} packets, "
               f"{result['packets_lost']} lost")
    if result["frames_received"] < at_least or result["packets_lost"]:
        raise Failure(numbers)
    return numbers


def report_calls(report, relay, library, transports, call, messages="data channel", frames_at_least=None):
    """`call(relay, transport)` gives the result of a call; two are made at a time. Without `frames_at_least` there is no video."""

    def cases(transport):
        name, result = f"{library} over {transport}", {}

        def connects():
            result.update(call(relay, transport))
            return check_connected(result, transport)

        report.case(f"{name}: connects by relay only", connects)
        if result:
            report.case(f"{name}: {messages}", lambda: check_messages(result))
            if frames_at_least:
                report.case(f"{name}: video", lambda: check_video(result, frames_at_least))

    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(cases, transports))
