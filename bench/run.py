#!/usr/bin/env python3
"""Measures the relay against coturn, or two binaries against each other, on loopback and in one alternated run.

    bench/run.py allocations --count 16000
    bench/run.py packets --sessions 200 --size 1000 --rounds 5

bench/README.md says what is measured and how to read it. Standard library only.
"""

import argparse
import atexit
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

REALM, USER, PASSWORD = "bench", "bench", "a-password-of-the-bench"

children = []


def stop(process, patience=5.0):
    """Ends a process that this program has started."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process in children:
        children.remove(process)


@atexit.register
def stop_all():
    for process in list(children):
        stop(process, 2.0)


def start(command, core, nice, **more):
    def prepare():
        os.sched_setaffinity(0, {core})
        if nice:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
            try:  # With autogroups a process's nice value counts only within its session, and the session has one of its own.
                with open("/proc/self/autogroup", "w") as group:
                    group.write(str(nice))
            except OSError:
                pass
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    process = subprocess.Popen(command, preexec_fn=prepare, start_new_session=True, **more)
    children.append(process)
    return process


class Server:
    """One program under test. `slot` keeps the ports of two servers that live at the same time apart."""

    def __init__(self, name, arguments, slot, slots, work):
        self.name, self.slot, self.core = name, slot, arguments.server_core
        self.port = arguments.port + slot
        # Half the range each, where two live at a time: neither searches for a port that the other has.
        width = 32768 // slots
        self.ports = (32768 + slot * width, 32768 + (slot + 1) * width - 1)
        self.folder = os.path.join(work, f"{name}-{slot}")
        os.makedirs(self.folder, exist_ok=True)
        self.arguments = arguments
        self.process = None

    def command(self):
        raise NotImplementedError

    def start(self):
        log = open(os.path.join(self.folder, "output"), "wb")
        self.process = start(self.command(), self.core, self.arguments.nice, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + 10
        while not self.is_listening():
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(os.path.join(self.folder, "output"), errors="replace") as output:
                    sys.exit(f"{self.name} does not listen on port {self.port}:\n{output.read()[-3000:]}")
            time.sleep(0.05)
        time.sleep(1.0)  # what it still does after its start is not an allocation's cost
        return self

    def is_listening(self):
        wanted = f":{self.port:04X} "
        with open("/proc/net/udp") as sockets:
            return any(wanted in line for line in sockets)

    def stop(self):
        if self.process:
            stop(self.process)
            self.process = None


class Radiotower(Server):
    def command(self):
        users, config = os.path.join(self.folder, "users"), os.path.join(self.folder, "relay.toml")
        with open(os.open(users, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write(f"{USER}:{PASSWORD}\n")
        with open(config, "w") as out:
            out.write(f"""realm = "{REALM}"
[listen]
udp = ["127.0.0.1:{self.port}"]
[relay]
addresses = ["127.0.0.1"]
ports = "{self.ports[0]}-{self.ports[1]}"
[credentials]
users_file = "users"
[peers]
allow = ["127.0.0.1/32 unsafe"]
[limits]
error_answers_per_second = 0
binding_answers_per_second = 0
[workers]
count = 1
backend = "{self.arguments.backend}"
""")
        return [self.arguments.relay, "--config", config]


class Coturn(Server):
    def command(self):
        # One relay thread, as many as the core it gets; what it prints goes to a file of a few lines: without --verbose it
        # prints nothing for an allocation or a packet.
        return [
            self.arguments.coturn, "-n", "--no-tls", "--no-dtls", "--no-tcp", "--no-tcp-relay", "--no-cli", "--no-rfc5780",
            "--lt-cred-mech", f"--user={USER}:{PASSWORD}", f"--realm={REALM}",
            "--listening-ip=127.0.0.1", f"--listening-port={self.port}", "--relay-ip=127.0.0.1", "--allow-loopback-peers",
            f"--min-port={self.ports[0]}", f"--max-port={self.ports[1]}", "-m", str(self.arguments.coturn_threads),
            "--log-file=/dev/null", "--simple-log", "--no-stdout-log",
            f"--pidfile={self.folder}/pid", f"--userdb={self.folder}/turndb",
        ]


class Load:
    """The load generator for one server: commands go in, JSON comes out."""

    def __init__(self, server, arguments, sessions):
        self.process = start(
            [
                arguments.load, "--server", f"127.0.0.1:{server.port}", "--server-pid", str(server.process.pid),
                "--sessions", str(sessions), "--size", str(arguments.size), "--train", str(arguments.train),
                "--user", USER, "--password", PASSWORD, "--window", str(arguments.window),
                # All below 32768: a port of the relay's range that a client holds would be the server's loss.
                "--clients", f"127.{1 + server.slot}.0.1:10000", "--peers", f"127.0.0.1:{20000 + 1000 * server.slot}",
            ],
            arguments.load_core, arguments.nice, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, command):
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the load generator has ended on \"{command}\" (exit status {self.process.wait()})")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        stop(self.process)


def first_line(command):
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10, text=True, check=False)
        lines = [line.strip() for line in run.stdout.splitlines() if line.strip()]
        return (lines or ["?"])[0]
    except (OSError, subprocess.TimeoutExpired):
        return "?"


def facts(arguments):
    model = "?"
    with open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory = "?"
    with open("/proc/meminfo") as info:
        memory = f"{int(info.readline().split()[1]) // 1024} MiB"
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "kernel": platform.release(), "cpu": model, "cores": os.cpu_count(), "memory": memory,
        "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "load_average": os.getloadavg(), "server_core": arguments.server_core, "load_core": arguments.load_core,
        "versions": {"radiotower": first_line([arguments.relay, "--version"]) if arguments.relay else None,
                     "coturn": first_line([arguments.coturn, "--version"])},
        "command": " ".join(sys.argv),
    }


def print_facts(f):
    print(f"{f['date']}, Linux {f['kernel']}, {f['cpu']}, {f['cores']} cores, {f['memory']}, "
          f"load average {f['load_average'][0]:.1f}, {f['descriptors']} descriptors a process")
    print(f"server on core {f['server_core']}, load on core {f['load_core']}; {f['versions']}")


def table(head, rows):
    rows = [head] + rows
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for number, row in enumerate(rows):
        print("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))).rstrip())
        if number == 0:
            print("  ".join("-" * w for w in widths))


def median(values):
    return statistics.median(values)


def make_servers(arguments, slots, work):
    made = []
    for number, name in enumerate(arguments.servers):
        kind = {"radiotower": Radiotower, "coturn": Coturn}[name]
        made.append(kind(name, arguments, number if slots > 1 else 0, slots, work))
    return made


def label(servers, number):
    """Two servers of one kind (a run that shows the method's own noise) are told apart."""
    names = [s.name for s in servers]
    return names[number] if names.count(names[number]) == 1 else f"{names[number]}-{'AB'[number]}"


def ratios(of, over):
    return [a / b if b else float("nan") for a, b in zip(of, over)]


def ratio_text(of, over):
    r = ratios(of, over)
    return f"{median(r):.2f} ({min(r):.2f}-{max(r):.2f})"


# ---------------------------------------------------------------------------------------------------------------- allocations


def measure_allocations(server, arguments):
    server.start()
    load = Load(server, arguments, arguments.count)
    before = load("memory")
    set_up = load("set-up")
    time.sleep(0.2)
    after = load("memory")
    verified = load("verify")
    traffic = {way: load(f"traffic {way} {arguments.rate} {arguments.seconds}") for way in ("to-peer", "to-client")}
    relaying = load("memory")
    load.close()
    server.stop()

    count = arguments.count
    return {
        "set_up": set_up, "verified": verified, "traffic": traffic,
        "memory": {"before": before, "after_set_up": after, "after_traffic": relaying},
        "failures": count - set_up["ready"] + count - verified["to_peer"] + count - verified["to_client"],
        "cpu_us": set_up["server_cpu_ns"] / 1000 / count,
        "seconds": set_up["elapsed_ns"] / 1e9,
        "rss_kb": (relaying["rss_kb"] - before["rss_kb"]) / count,
        "anon_kb": (relaying["anon_kb"] - before["anon_kb"]) / count,
        "slab_kb": (after["slab_kb"] - before["slab_kb"]) / count,
    }


def allocations(arguments, work):
    servers = make_servers(arguments, 1, work)
    results = [[], []]
    for number in range(arguments.rounds):
        for which in ((0, 1), (1, 0))[number % 2]:
            result = measure_allocations(servers[which], arguments)
            results[which].append(result)
            print(f"round {number + 1}: {label(servers, which):<12} set up {result['set_up']['ready']} in {result['seconds']:.2f} s, "
                  f"{result['cpu_us']:.1f} us CPU each, {result['rss_kb']:.2f} KB each, failures {result['failures']} "
                  f"{result['set_up']['errors'] or ''}", flush=True)

    rows = []

    def row(title, value, form="{:.1f}", compare=True):
        values = [[value(r) for r in results[i]] for i in (0, 1)]
        rows.append([title] + [form.format(median(v)) for v in values] + [ratio_text(*values) if compare else ""])

    row("set-up CPU an allocation + channel, us", lambda r: r["cpu_us"])
    row("set-up, elapsed s", lambda r: r["seconds"], "{:.2f}")
    row("RSS before, KB", lambda r: r["memory"]["before"]["rss_kb"], "{:.0f}")
    row("RSS after set-up, KB", lambda r: r["memory"]["after_set_up"]["rss_kb"], "{:.0f}")
    row("RSS after traffic, KB", lambda r: r["memory"]["after_traffic"]["rss_kb"], "{:.0f}")
    row("RSS an allocation, KB", lambda r: r["rss_kb"], "{:.2f}")
    row("anonymous RSS an allocation, KB", lambda r: r["anon_kb"], "{:.2f}")
    row("kernel slab an allocation, KB", lambda r: r["slab_kb"], "{:.2f}")
    for way in ("to-peer", "to-client"):
        row(f"{way}: CPU a delivered packet, ns", lambda r, w=way: cost(r["traffic"][w]), "{:.0f}")
        row(f"{way}: delivered of sent, %", lambda r, w=way: share(r["traffic"][w]), "{:.2f}", False)
    row("allocations that relay to their peer", lambda r: r["verified"]["to_peer"], "{:.0f}", False)
    row("allocations that relay to their client", lambda r: r["verified"]["to_client"], "{:.0f}", False)
    row("packets sent again for that", lambda r: r["verified"]["resent"], "{:.0f}", False)
    row("requests sent again", lambda r: r["set_up"]["retransmissions"], "{:.0f}", False)
    row("others on the machine during traffic, % of a core",
        lambda r: max(others(t) for t in r["traffic"].values()), "{:.0f}", False)
    row("failures", lambda r: r["failures"], "{:.0f}", False)
    print()
    table([f"{arguments.count} allocations"] + [label(servers, i) for i in (0, 1)] + ["ratio (range)"], rows)

    names = [label(servers, i) for i in (0, 1)]
    summary = {
        "set_up_cpu_us": dict(zip(names, [median([r["cpu_us"] for r in results[i]]) for i in (0, 1)])),
        "set_up_cpu_ratio": median(ratios(*[[r["cpu_us"] for r in results[i]] for i in (0, 1)])),
        "rss_kb": dict(zip(names, [median([r["rss_kb"] for r in results[i]]) for i in (0, 1)])),
        "failures": dict(zip(names, [sum(r["failures"] for r in results[i]) for i in (0, 1)])),
    }
    checks = []
    if servers[0].name == "radiotower" and servers[1].name == "coturn":
        checks = [
            ("set-up CPU at most half of coturn's", summary["set_up_cpu_ratio"] <= 0.5),
            ("at most 4 KB of user memory an allocation", summary["rss_kb"][names[0]] <= 4),
            ("every allocation relays, no failure", summary["failures"][names[0]] == 0),
        ]
    return {"rounds": dict(zip(names, results)), "summary": summary}, checks


# -------------------------------------------------------------------------------------------------------------------- packets


def cost(traffic):
    return traffic["server_cpu_ns"] / max(1, traffic["delivered"])


def machine_cost(traffic):
    return traffic["machine_cpu_ns"] / max(1, traffic["delivered"])


def speed(traffic):
    return traffic["delivered"] * 1e9 / traffic["elapsed_ns"]


def share(traffic):
    return 100 * traffic["delivered"] / max(1, traffic["sent"])


def busy(traffic):
    return 100 * traffic["server_cpu_ns"] / traffic["elapsed_ns"]


def others(traffic):
    """What neither server nor load has used, in percent of one core: other programs of the machine, and ksoftirqd."""
    used = traffic["machine_cpu_ns"] - traffic["server_cpu_ns"] - traffic["load_cpu_ns"]
    return max(0.0, 100 * used / traffic["elapsed_ns"])


def measure_pair(loads, order, command, arguments):
    """Both servers, one straight after the other. A pair that other programs disturbed is measured again: what they take decides,
    not the figures. When no attempt is quiet the quietest counts."""
    best = None
    for attempt in range(1 + arguments.repeats):
        pair = [None, None]
        for which in order:
            pair[which] = loads[which](command)
        disturbance = max(others(t) for t in pair)
        if best is None or disturbance < best[0]:
            best = (disturbance, pair)
        if disturbance <= arguments.disturbance:
            break
    return best[1], attempt


def packets(arguments, work):
    servers = [s.start() for s in make_servers(arguments, 2, work)]
    loads = [Load(s, arguments, arguments.sessions) for s in servers]
    names = [label(servers, i) for i in (0, 1)]
    for name, load in zip(names, loads):
        set_up, verified = load("set-up"), load("verify")
        if set_up["ready"] != arguments.sessions or verified["to_client"] != arguments.sessions:
            sys.exit(f"{name}: not all sessions relay: {set_up} {verified}")

    rates = [0.0] + [float(r) for r in arguments.rate.split(",") if float(r) > 0]
    cells = [(way, rate) for rate in rates for way in ("to-peer", "to-client")]
    results = {cell: [[], []] for cell in cells}
    renewed, repeats = time.monotonic(), 0
    for number in range(arguments.rounds):
        for cell in cells:
            way, rate = cell
            if time.monotonic() - renewed > 120:  # permissions last 300 s
                for load in loads:
                    load("renew")
                renewed = time.monotonic()
            pair, repeated = measure_pair(loads, ((0, 1), (1, 0))[number % 2], f"traffic {way} {rate} {arguments.seconds}", arguments)
            repeats += repeated
            for which in (0, 1):
                results[cell][which].append(pair[which])
        line = ", ".join(f"{way} {'saturated' if rate == 0 else f'{rate:.0f}/s'} "
                         + "/".join(f"{cost(results[way, rate][i][-1]):.0f}" for i in (0, 1)) for way, rate in cells)
        print(f"round {number + 1}: ns a delivered packet, {'/'.join(names)}: {line}", flush=True)
    for load in loads:
        load.close()
    for server in servers:
        server.stop()

    print()
    rows, summary, checks = [], {}, []
    for cell in cells:
        way, rate = cell
        pair = results[cell]
        title = f"{way}, {'saturated' if rate == 0 else f'{rate:.0f} packets/s'}"
        costs = [[cost(t) for t in pair[i]] for i in (0, 1)]
        for i in (0, 1):
            ts = pair[i]
            rows.append([
                title if i == 0 else "", names[i], f"{median(costs[i]):.0f}",
                ratio_text(costs[0], costs[1]) if i == 0 else "",
                f"{median([machine_cost(t) for t in ts]):.0f}", f"{median([speed(t) for t in ts]) / 1000:.1f}",
                f"{median([share(t) for t in ts]):.1f}", f"{median([busy(t) for t in ts]):.0f}",
                f"{median([t['latency_p50_us'] for t in ts]):.0f}", f"{median([t['latency_p99_us'] for t in ts]):.0f}",
                f"{median([others(t) for t in ts]):.0f}", f"{sum(t['wrong'] for t in ts)}",
            ])
        ratio = median(ratios(*costs))
        summary[title] = {
            "cpu_ns_a_packet": dict(zip(names, [median(c) for c in costs])), "ratio": ratio,
            "ratio_of_each_pair": ratios(*costs),
            "machine_cpu_ns_a_packet": dict(zip(names, [median([machine_cost(t) for t in pair[i]]) for i in (0, 1)])),
            "delivered_per_second": dict(zip(names, [median([speed(t) for t in pair[i]]) for i in (0, 1)])),
        }
        if servers[0].name == "radiotower" and servers[1].name == "coturn":
            checks.append((f"{title}: at most 0.85 of coturn's CPU", ratio <= 0.85))
    table(["", "server", "CPU ns a packet", "ratio (range)", "whole machine", "k/s", "of sent, %", "core busy, %",
           "p50 us", "p99 us", "others, %", "wrong"], rows)
    if any(median([others(t) for t in pair[i]]) > arguments.disturbance for pair in results.values() for i in (0, 1)):
        print("DISTURBED: other programs took their share of the cores all the time; see --nice, or wait for a quiet machine")
    print(f"{repeats} pairs measured again because other programs took more than {arguments.disturbance:.0f} % of a core")
    raw = [{"direction": way, "rate": rate, "results": dict(zip(names, results[way, rate]))} for way, rate in cells]
    return {"rounds": raw, "summary": summary, "repeats": repeats}, checks


# ----------------------------------------------------------------------------------------------------------------------- main


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    build = os.path.join(os.path.dirname(here), "build")
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description="Measures the relay against coturn, alternated, on loopback.")
    parser.add_argument("--build", default=build, help="the build directory (default: build)")
    parser.add_argument("--relay", help="another radiotower-relay than the build directory's")
    parser.add_argument("--load", help="another radiotower-load than the build directory's")
    parser.add_argument("--coturn", default=shutil.which("turnserver") or "turnserver", help="coturn's server")
    parser.add_argument("--coturn-threads", type=int, default=1, help="coturn's relay threads (0: single-threaded mode)")
    parser.add_argument("--backend", default="auto", help="of the relay: auto, io_uring or epoll")
    parser.add_argument("--servers", default="radiotower,coturn", help="the pair to compare; \"coturn,coturn\" shows the noise")
    parser.add_argument("--server-core", type=int, default=cores[0])
    parser.add_argument("--load-core", type=int, default=cores[-1])
    parser.add_argument("--nice", type=int, default=0,
                        help="of servers and load alike; -15 keeps a shared machine's other programs away (root)")
    parser.add_argument("--port", type=int, default=23478, help="first listening port")
    parser.add_argument("--window", type=int, default=64, help="sessions that are set up at the same time")
    parser.add_argument("--json", help="where the results go (default: bench-<what>.json here)")
    commands = parser.add_subparsers(dest="what", required=True)
    a = commands.add_parser("allocations", help="many allocations at once: CPU and memory of each")
    a.add_argument("--count", type=int, default=16000)
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--rate", type=float, default=20000, help="packets a second over all of them, each way")
    a.add_argument("--seconds", type=float, default=2)
    p = commands.add_parser("packets", help="CPU a relayed packet")
    p.add_argument("--sessions", type=int, default=200)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--rate", default="80000", help="packets a second beside saturation; several with commas")
    p.add_argument("--seconds", type=float, default=1, help="of one measurement")
    p.add_argument("--disturbance", type=float, default=10,
                   help="percent of one core that other programs may use before a pair is measured again")
    p.add_argument("--repeats", type=int, default=3, help="how often at most")
    for command in (a, p):
        command.add_argument("--size", type=int, default=1000, help="bytes of payload")
        command.add_argument("--train", type=int, default=1, help="datagrams a send, by UDP GSO (1: one packet at a time)")
    arguments = parser.parse_args()
    arguments.servers = arguments.servers.split(",")
    if len(arguments.servers) != 2 or not set(arguments.servers) <= {"radiotower", "coturn"}:
        parser.error("--servers wants two of radiotower and coturn")
    arguments.load = os.path.abspath(arguments.load or os.path.join(arguments.build, "bench", "radiotower-load"))
    arguments.relay = os.path.abspath(arguments.relay or os.path.join(arguments.build, "relay", "daemon", "radiotower-relay"))
    if "radiotower" not in arguments.servers and not os.path.exists(arguments.relay):
        arguments.relay = None
    for needed in (arguments.load, arguments.relay, arguments.coturn):
        if needed and not os.access(needed, os.X_OK):
            sys.exit(f"{needed} is not there")
    if arguments.server_core == arguments.load_core:
        print("one core for server and load: the figures mean little", file=sys.stderr)

    machine = facts(arguments)
    print_facts(machine)
    with tempfile.TemporaryDirectory(prefix="radiotower-bench-") as work:
        result, checks = {"allocations": allocations, "packets": packets}[arguments.what](arguments, work)
        stop_all()
    print()
    for text, is_met in checks:
        print(f"{'met    ' if is_met else 'NOT MET'}  {text}")
    machine["load_average_after"] = os.getloadavg()
    options = {key: value for key, value in vars(arguments).items() if key != "what"}
    file = arguments.json or f"bench-{arguments.what}.json"
    with open(file, "w") as out:
        json.dump({"what": arguments.what, "machine": machine, "options": options, **result,
                   "checks": {text: is_met for text, is_met in checks}}, out, indent=1)
    print(f"\nall figures: {file}")
    return 0 if all(is_met for _, is_met in checks) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
