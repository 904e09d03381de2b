"""Figures of one measurement, and what many of them come to."""

import statistics

from .measure import others

SMALL = 1e-9


def allocate_p99_ms(result):
    """An Allocate that failed took all the eight seconds it was given: where more than one in a hundred did, so did the slowest hundredth."""
    probe = result["probe"]
    return 8000.0 if probe["failures"] * 100 > probe["tries"] else probe["latency_p99_us"] / 1000


def cost(r):
    """CPU ns of the server process a delivered packet."""
    return r["server_cpu_ns"] / max(1, r["delivered"])


def machine(r):
    return r["machine_cpu_ns"] / max(1, r["delivered"])


def accounted(r):
    """What server, load and ksoftirqd have used, to the nanosecond. With veths that is all there is: no interrupt of a device hits an
    idle CPU, what a packet costs on its way is done in the system call of whoever sends it. The whole machine's figure comes in ticks
    of 10 ms, from a look at each CPU every 4 ms, and other programs are in it."""
    return (r["server_cpu_ns"] + r["load_cpu_ns"] + r.get("softirq_cpu_ns", 0)) / max(1, r["delivered"])


def load_cost(r):
    return r["load_cpu_ns"] / max(1, r["delivered"])


def speed(r):
    return r["delivered"] * 1e9 / r["elapsed_ns"]


def loss(r):
    return 100 * r["loss"]


def busy(r):
    return 100 * r["server_cpu_ns"] / r["elapsed_ns"]


class Spread:
    """The values of all rounds: their median, and how far they lie apart."""

    def __init__(self, values):
        self.values = sorted(values)
        self.median = statistics.median(values)
        quarters = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        self.low, self.high = quarters[0], quarters[2]

    def json(self):
        return {"median": self.median, "quartiles": [self.low, self.high], "range": [self.values[0], self.values[-1]]}


def spread(rounds, name, value):
    return Spread([value(results[name]) for results in rounds])


def ratio(rounds, name, over, value):
    """Of each round, so that what the machine did meanwhile falls out."""
    return Spread([value(results[name]) / max(SMALL, value(results[over])) for results in rounds])


# What is shown of a traffic cell: key, title, value, format.
TRAFFIC = [
    ("cpu_ns", "CPU ns a packet", cost, "{:,.0f}"),
    ("accounted_ns", "with load and ksoftirqd", accounted, "{:,.0f}"),
    ("machine_ns", "machine ns a packet", machine, "{:,.0f}"),
    ("delivered", "delivered k/s", lambda r: speed(r) / 1000, "{:.1f}"),
    ("loss", "lost %", loss, "{:.3f}"),
    ("p50_us", "p50 us", lambda r: r["latency_p50_us"], "{:,.0f}"),
    ("p99_us", "p99 us", lambda r: r["latency_p99_us"], "{:,.0f}"),
    ("p999_us", "p99.9 us", lambda r: r["latency_p999_us"], "{:,.0f}"),
    ("busy", "core busy %", busy, "{:.0f}"),
    ("load_ns", "load ns a packet", load_cost, "{:,.0f}"),
    ("others", "others %", others, "{:.0f}"),
    ("own_drops", "load's drops", lambda r: r["own_drops"], "{:.0f}"),
    ("wrong", "wrong", lambda r: r["wrong"], "{:.0f}"),
]
# Beside "direct", the same packets without a relay: what of the latency is the relay's.
ADDED = [
    ("added_p50_us", "added p50", lambda r: r["latency_p50_us"], "{:,.0f}"),
    ("added_p99_us", "added p99", lambda r: r["latency_p99_us"], "{:,.0f}"),
    ("added_p999_us", "added p99.9", lambda r: r["latency_p999_us"], "{:,.0f}"),
]
SEARCH = [
    ("capacity", "k/s at most 0.1 % lost", lambda r: r["search"]["delivered_a_second"] / 1000, "{:.1f}"),
    ("cpu_ns", "CPU ns a packet", cost, "{:,.0f}"),
    ("p99_us", "p99 us", lambda r: r["latency_p99_us"], "{:,.0f}"),
    ("load_bound", "bound by the load", lambda r: float(r["search"]["load_bound"]), "{:.1f}"),
]
FLOOD = [
    ("loss", "calls lost %", loss, "{:.3f}"),
    ("p99_us", "calls p99 us", lambda r: r["latency_p99_us"], "{:,.0f}"),
    ("junk", "junk k/s", lambda r: r["flood"]["sent"] * 1e6 / max(1, r["flood"]["elapsed_ns"]), "{:.0f}"),
    ("allocate_p50_ms", "Allocate p50 ms", lambda r: r["probe"]["latency_p50_us"] / 1000, "{:.2f}"),
    ("allocate_p99_ms", "Allocate p99 ms", lambda r: allocate_p99_ms(r), "{:.2f}"),
    ("allocate_failures", "failed", lambda r: r["probe"]["failures"], "{:.0f}"),
    ("allocates", "of", lambda r: r["probe"]["tries"], "{:.0f}"),
    ("busy", "core busy %", busy, "{:.0f}"),
]
STORM = [
    ("cpu_us", "CPU us to set up", lambda r: r["set_up_cpu_ns"] / 1000 / max(1, r["allocations"]), "{:.1f}"),
    ("end_us", "CPU us to give back", lambda r: r["tear_down_cpu_ns"] / 1000 / max(1, r["allocations"]), "{:.1f}"),
    ("allocations", "allocations/s", lambda r: r["allocations"] * 1e9 / max(1, r["set_up_ns"]), "{:,.0f}"),
    ("ends", "given back/s", lambda r: r["allocations"] * 1e9 / max(1, r["tear_down_ns"]), "{:,.0f}"),
    ("failures", "failures", lambda r: r["failures"], "{:.0f}"),
    ("resent", "sent again", lambda r: r["retransmissions"], "{:.0f}"),
]


def grown(key, until):
    def value(r):
        memory = r["many"]["memory"]
        return (memory[until][key] - memory["before"][key]) / r["many"]["sessions"]
    return value


def packets_of(which):
    def value(r):
        traffic = r[which]["traffic"]
        return sum(t["server_cpu_ns"] for t in traffic.values()) / max(1, sum(t["delivered"] for t in traffic.values()))
    return value


def slower_with_many(r):
    return packets_of("many")(r) / max(SMALL, packets_of("few")(r))


IDLE = [
    ("cpu_us", "CPU us to set up", lambda r: r["many"]["set_up"]["server_cpu_ns"] / 1000 / r["many"]["sessions"], "{:.1f}"),
    ("rss_kb", "RSS KB each", grown("rss_kb", "after_traffic"), "{:.2f}"),
    ("anon_kb", "anonymous KB each", grown("anon_kb", "after_traffic"), "{:.2f}"),
    ("slab_kb", "kernel slab KB each", grown("slab_kb", "after_set_up"), "{:.2f}"),
    ("packet_ns", "CPU ns a packet", packets_of("many"), "{:,.0f}"),
    ("few_ns", "with 100", packets_of("few"), "{:,.0f}"),
    ("slower", "ratio", slower_with_many, "{:.2f}"),
    ("seconds", "set-up s", lambda r: r["many"]["set_up"]["elapsed_ns"] / 1e9, "{:.2f}"),
    ("failures", "failures", lambda r: r["many"]["failures"], "{:.0f}"),
]


def columns_of(results):
    """Which of the tables above fits a measurement."""
    if "few" in results:
        return IDLE
    if "allocations" in results:
        return STORM
    if "search" in results:
        return SEARCH
    if "probe" in results:
        return FLOOD
    return TRAFFIC
