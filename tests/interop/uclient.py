"""coturn's turnutils_uclient against a relay: no message may be lost.

Each case is ten clients (client to client: twelve, it rounds up) that send a thousand messages each, every four milliseconds; a
client starts at a random moment of its first six seconds, so a case lasts about ten. Without -c the clients come in pairs, as RTP
and RTCP do: one asks for an EVEN-PORT, its neighbour for the port of the RESERVATION-TOKEN. A client also allocates once from a
socket that it then forgets, so a case leaves allocations behind: up to ten with -c, and those count for its user.
"""

import concurrent.futures
import functools
import itertools
import re
import subprocess
import time

from relay import PASSWORD, SECRET, TLS, USER, Failure, free_port

CLIENTS, MESSAGES, INTERVAL_MS, MESSAGE_BYTES = 10, 1000, 4, 200
TIMEOUT_SECONDS = 120
AT_A_TIME = 2


class Peer:
    """turnutils_peer: an echo, a separate one for each case."""

    def __init__(self, address, namespace=None):
        self.address, self.port, self.namespace = address, free_port(), namespace

    def __enter__(self):
        self.process = subprocess.Popen(["turnutils_peer", "-L", self.address, "-p", str(self.port)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        preexec_fn=self.namespace.enter if self.namespace else None)
        end = time.monotonic() + 30
        while not self.listens():
            if self.process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                raise Failure("turnutils_peer does not start")
            time.sleep(0.02)
        return self

    def listens(self):
        with open(f"/proc/{self.process.pid}/net/" + ("udp6" if ":" in self.address else "udp")) as f:
            return any(line.split()[1].endswith(f":{self.port:04X}") for line in f.readlines()[1:])

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def statistics(output):
    """The last totals it printed: sent, received, lost, dropped before sending, round trip in ms."""
    totals = re.findall(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)", output)
    lost = re.findall(r"Total lost packets (-?\d+) .*total send dropped (-?\d+)", output)
    trip = re.findall(r"Average round trip delay ([\d.]+) ms; min = \d+ ms, max = (\d+) ms", output)
    if not totals or not lost or not trip:
        raise Failure("no statistics: " + " | ".join(dict.fromkeys(output.strip().splitlines()[-4:])))
    return (*map(int, totals[-1]), *map(int, lost[-1]), *trip[-1])


class Lost(Failure):
    """Fewer came back than were sent."""


def thrown_away():
    """Datagrams for which the kernel had no room in a socket of this network, whosoever it was."""
    with open("/proc/thread-self/net/snmp") as four, open("/proc/thread-self/net/snmp6") as six:
        udp = [line.split() for line in four if line.startswith("Udp:")]
        return int(udp[1][udp[0].index("RcvbufErrors")]) + sum(int(line.split()[1]) for line in six if line.startswith("Udp6RcvbufErrors "))


def lost_by(relay):
    counters = relay.counters()
    return {name: counters.get(name, 0) for name in (*relay.congestion, "kernel_drops")}


def told_apart(relay, check):
    """Where a client or an echo is not scheduled for long, the kernel throws away what it does not read. That is no loss of the relay: when the
    kernel says that it was so, and the relay that it was not in front of or inside it, the case is tried again, three times at most."""
    for last in (False, False, True):
        before, relays_before = thrown_away(), lost_by(relay)
        try:
            return check()
        except Lost:
            if last or thrown_away() == before or lost_by(relay) != relays_before or not relays_before:
                raise


def run_client(relay, options):
    ipv4, ipv6 = relay.servers.values()
    server = ipv6 if "-x" in options and ("-W" in options or "-t" in options) else ipv4  # -x over IPv4 too: the families are independent
    command = ["turnutils_uclient", "-m", str(CLIENTS), "-n", str(MESSAGES), "-z", str(INTERVAL_MS), "-l", str(MESSAGE_BYTES),
               "-p", str(relay.port), *options, server]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as e:
        tail = (e.stdout or b"").decode(errors="replace").strip().splitlines()[-1:]
        raise Failure(f"not done after {TIMEOUT_SECONDS} s: {tail}") from None
    if done.returncode != 0:
        raise Failure(f"exit status {done.returncode}: " + " | ".join(dict.fromkeys(done.stdout.strip().splitlines()[-4:])))
    sent, received, lost, dropped, average, longest = statistics(done.stdout)
    numbers = f"sent {sent}, received {received}, lost {lost}, not sent {dropped}, round trip {float(average):.2f} ms, at most {longest} ms"
    if sent < CLIENTS * MESSAGES or received != sent or lost or dropped:
        raise Lost(numbers)
    return numbers


def run_case(relay, options, external):
    if not external:
        return told_apart(relay, lambda: run_client(relay, [*options, "-y"]))
    with Peer(relay.peers["-x" in options], relay.peer_namespace) as peer:
        return told_apart(relay, lambda: run_client(relay, [*options, "-e", peer.address, "-r", str(peer.port)]))


def check_pairs(relay, cases):
    """That EVEN-PORT and RESERVATION-TOKEN were asked for and had their effect, which no statistics tell."""
    made = set(relay.relayed_addresses())
    pairs = sum(port % 2 == 0 and (address, port + 1) in made for address, port in made)
    numbers = f"{pairs} pairs in {cases} cases, {len(made)} relayed addresses"
    if pairs < cases * CLIENTS // 2:
        raise Failure(numbers)
    return numbers


def check_driver(relay, cases):
    """That what the driver can forward, channels to peers, was forwarded there, but for what came before the first beat."""
    counters, messages = relay.counters(), cases * CLIENTS * MESSAGES
    shortcuts = counters["shortcut_packets_to_peer"], counters["shortcut_packets_to_client"]
    numbers = f"{shortcuts[0]} + {shortcuts[1]} of {messages} each way, in user space {counters['received']} datagrams"
    if min(shortcuts) < 0.98 * messages:
        raise Failure(numbers)
    return numbers


def run_group(relay, group, rest, report, forwarded_alone):
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        for number, (send, external, ipv6) in enumerate(itertools.product((False, True), repeat=3)):
            if forwarded_alone and (send or not external):
                continue
            # A name of its own: a case that failed leaves allocations behind that count for its user.
            options = ["-u", f"case{number}", "-W", SECRET] if rest else ["-u", USER, "-w", PASSWORD]
            options += ["-s"] * send + ["-x"] * ipv6
            name = f"{group} {'indication' if send else 'channel'} {'peer' if external else 'client'} {'ipv6' if ipv6 else 'ipv4'}"
            if send and not rest:
                options.append("-c")
                name += " no-rtcp"
            pool.submit(report.case, name, functools.partial(run_case, relay, options, external))
    if relay.peer_namespace:
        report.case(f"{group}: in the driver", lambda: check_driver(relay, 2))
    if relay.relayed_addresses() and not forwarded_alone:
        report.case(f"{group}: even ports and the next ones", lambda: check_pairs(relay, 8 if rest else 4))


def run(make_relay, report, forwarded_alone=False):
    """`forwarded_alone`: only the cases that a driver can forward."""
    for rest in (False, True):
        group = "uclient rest" if rest else "uclient user"
        # It takes channel numbers up to 0x7FFE as RFC 5766 let it; RFC 8656 ends at 0x4FFF.
        relay = make_relay(rest=rest, settings={"relay.rfc5766_channel_numbers": "true"})
        report.with_relay(group, relay, lambda r, g=group, w=rest: run_group(r, g, w, report, forwarded_alone))
    if not forwarded_alone:
        settings = {"relay.rfc5766_channel_numbers": "true", **TLS}
        report.with_relay("uclient streams", make_relay(rest=False, settings=settings, tls=True), lambda r: run_streams(r, report))


def run_streams(relay, report):
    """-t: TCP; -t -S: TLS, on the same port. It takes any certificate, also where -E names a CA. Over TLS it takes a record for a message, which
    coturn does not see to: a few messages in a thousand are lost, so there the stand-in tells nothing."""
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        for tls, send, ipv6 in itertools.product((False,) if relay.name == "coturn" else (False, True), (False, True), (False, True)):
            options = ["-t", *["-S"] * tls, *["-s"] * send, *["-x"] * ipv6, "-u", USER, "-w", PASSWORD]
            name = f"uclient {'tls' if tls else 'tcp'} {'indication' if send else 'channel'} peer {'ipv6' if ipv6 else 'ipv4'}"
            pool.submit(report.case, name, functools.partial(run_case, relay, options, True))
