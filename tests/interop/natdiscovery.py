"""coturn's clients for NAT behaviour discovery (RFC 5780) against a relay with two addresses and two ports on each.

There is no NAT on loopback, so both mapping and filtering are endpoint-independent; what is looked at besides is that every answer
names where it came from and the other address, whichever it was asked at. tests/nat/run has the NATs. IPv6 takes a network
namespace, for loopback has one address of it, and so root.
"""

import functools
import os
import re
import subprocess

from cases import Failure
from namespaces import Namespace
from relay import free_port

TIMEOUT_SECONDS = 120
ADDRESSES = {4: ("127.0.0.1", "127.0.0.2"), 6: ("fd78::1", "fd78::2")}


def run_tool(relay, *command):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              timeout=TIMEOUT_SECONDS, preexec_fn=relay.namespace.enter if relay.namespace else None)
    except subprocess.TimeoutExpired:
        raise Failure(f"not done after {TIMEOUT_SECONDS} s") from None
    if done.returncode != 0:
        raise Failure(f"exit status {done.returncode}: " + " | ".join(done.stdout.strip().splitlines()[-4:]))
    return done.stdout


def answers(text):
    """(RESPONSE-ORIGIN, OTHER-ADDRESS) of each answer it printed; the first is printed twice in parts."""
    found = []
    for part in re.split(r"RFC 5780 response \d+", text)[1:]:
        origin = re.findall(r"Response origin: : (\S+)", part)
        other = re.findall(r"Other addr: : (\S+)", part)
        if not origin or not other:
            raise Failure("an answer without RESPONSE-ORIGIN or OTHER-ADDRESS: " + " | ".join(part.split("\n")))
        found.append((origin[-1], other[-1]))
    return found


def discover(relay, family, options, wanted, origins):
    """`origins`: for each answer, whether it came from the other address, and from the other port."""
    first, second = ADDRESSES[family]
    text = run_tool(relay, "turnutils_natdiscovery", *options, "-p", str(relay.port), first)
    if wanted and wanted not in text:
        raise Failure(f"\"{wanted}\" is not in: " + " | ".join(text.strip().splitlines()[-6:]))
    if "ALG" in text.replace("No ALG", ""):
        raise Failure("MAPPED-ADDRESS and XOR-MAPPED-ADDRESS differ")

    def place(ip, port):
        return f"{second if ip else first}:{relay.other_port if port else relay.port}"  # it prints IPv6 without brackets
    # The other address is reckoned from where the request went, which CHANGE-REQUEST does not move.
    expected = [(place(*origin), place(not asked[0], not asked[1])) for asked, origin in origins]
    got = answers(text)
    if got != expected:
        raise Failure(f"origin and other address {got} where {expected} are due")
    return f"{len(got)} answers"


HERE, OTHER_IP, BOTH = (False, False), (True, False), (True, True)


def cases(relay, report, group, family):
    mapping = [(HERE, HERE), (OTHER_IP, OTHER_IP)]  # asked at, answered from
    filtering = [(HERE, HERE), (HERE, BOTH)]
    # Of the host's own IPv6 addresses the kernel would choose each time the one that is sent to.
    local = {4: [], 6: ["-L", "fd78::3"]}[family]
    alternative = {4: ["-L", "127.0.0.1", "-A", "127.0.0.3"], 6: ["-A", "fd78::4"]}[family]
    for padded in ([], ["-P"]):
        for name, options, wanted, origins in (("mapping", ["-m"], "NAT with Endpoint Independent Mapping!", mapping),
                                               ("filtering", ["-f"], "NAT with Endpoint Independent Filtering!", filtering),
                                               ("hairpinning", ["-H"], "Received a request (maybe a successful hairpinning)", mapping[:1]),
                                               ("collision", ["-c", *alternative], None, [mapping[0]] * 2),
                                               ("lifetime", ["-t", "-T", "1"], None, [mapping[0]] * 2)):
            if padded and name == "lifetime":  # RESPONSE-PORT and PADDING exclude each other
                continue
            report.case(f"{group} {name}{' padded' if padded else ''}",
                        functools.partial(discover, relay, family, options + local + padded, wanted, origins))
    report.case(f"{group} turnutils_stunclient -f", functools.partial(stunclient, relay, family))


def stunclient(relay, family):
    text = run_tool(relay, "turnutils_stunclient", "-f", "-p", str(relay.port), ADDRESSES[family][0])
    got = answers(text)
    if len(got) != 3 or got[1][0] == got[0][0]:
        raise Failure(f"answers {got}")
    return f"{len(got)} answers"


def run(make_relay, report):
    for family in (4, 6):
        relay = make_relay(rest=False)
        if not hasattr(relay, "settings"):
            return  # coturn as the server tells nothing about ours
        if family == 6 and os.geteuid() != 0:
            print("skipped: natdiscovery ipv6: a network namespace takes root", flush=True)
            continue
        first, second = ADDRESSES[family]
        relay.other_port = free_port()
        while relay.other_port == relay.port:
            relay.other_port = free_port()
        relay.servers = {first: first, second: second}
        listeners = [f"[{a}]:{p}" if family == 6 else f"{a}:{p}" for a in (first, second) for p in (relay.port, relay.other_port)]
        relay.settings.update({"listen.udp": "[" + ", ".join(f'"{text}"' for text in listeners) + "]", "features.nat_discovery": "true"})
        if family == 6:
            relay.namespace = Namespace("natdiscovery")
            relay.namespace.ip("link", "set", "lo", "up")
            for address in (first, second, "fd78::3", "fd78::4"):
                relay.namespace.ip("addr", "add", f"{address}/128", "dev", "lo", "nodad")
            relay.answers = lambda r=relay: "ready" in r.log()
        group = f"natdiscovery ipv{family}"
        report.with_relay(group, relay, lambda r, g=group, f=family: cases(r, report, g, f))
