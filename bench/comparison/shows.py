"""The measurements that stand for what is promised: each with its profiles, its servers and the limits it must keep."""

from dataclasses import dataclass
from typing import Callable

from . import figures
from .profiles import Profile, all_profiles, plain


@dataclass
class Show:
    number: int
    title: str
    profiles: list
    servers: list
    check: Callable
    network: str = ""  # another one than the run's
    offload: bool = False


class Checks:
    """Limits against what was measured. What was not measured is told as that, and is not met."""

    def __init__(self, results):
        self.results = {result["name"]: result for result in results}
        self.done = []

    def rounds(self, profile, cell, *names):
        rounds = self.results.get(profile, {}).get("rounds", {}).get(cell, [])
        return [r for r in rounds if all(name in r for name in names)]

    def add(self, what, met, measured):
        self.done.append({"what": what, "met": met, "measured": measured})

    def ratio(self, profile, cell, of, over, limit, value=figures.cost):
        rounds = self.rounds(profile, cell, of, over)
        what = f"{profile}, {cell}: CPU a packet of {of} at most {limit:.3g} of {over}'s"
        if not rounds:
            return self.add(what, False, "not measured")
        r = figures.ratio(rounds, of, over, value)
        return self.add(what, r.median <= limit, f"{r.median:.3f} ({r.values[0]:.3f}-{r.values[-1]:.3f})")

    def at_most(self, what, rounds, name, value, limit, form="{:.2f}", beside=()):
        if not rounds:
            return self.add(what, False, "not measured")
        s = figures.spread(rounds, name, value)
        text = form.format(s.median)
        for other in beside:
            if all(other in r for r in rounds):
                text += f"; {other} " + form.format(figures.spread(rounds, other, value).median)
        return self.add(what, s.median <= limit, text)


ME, COTURN, PLAIN, GRO = "radiotower", "coturn", "floor-io_uring", "floor-io_uring-gro"


def check_trains(c, rate):
    c.ratio("trains", "up, saturated", ME, COTURN, 1 / 6)
    for cell in (f"up, {rate:,}/s", f"down, {rate:,}/s"):
        c.ratio("trains", cell, ME, COTURN, 0.42)
    for cell in ("up, saturated", f"up, {rate:,}/s", f"down, {rate:,}/s"):
        c.ratio("trains", cell, ME, GRO, 1.2)


def check_singles(c, rate, audio):
    c.ratio("saturation", "up, saturated", ME, COTURN, 0.75)
    for cell in (f"up, {rate:,}/s", f"down, {rate:,}/s"):
        c.ratio("saturation", cell, ME, COTURN, 0.88)
    for cell in ("up, saturated", f"up, {rate:,}/s", f"down, {rate:,}/s"):
        c.ratio("saturation", cell, ME, PLAIN, 1.10)
    c.ratio("audio", f"both ways, {audio:,}/s", ME, COTURN, 0.88)
    c.ratio("audio", f"both ways, {audio:,}/s", ME, PLAIN, 1.10)


def check_offload(c, rate):
    for cell in (f"up, {rate:,}/s", f"down, {rate:,}/s"):
        rounds = c.rounds("offload", cell, ME, COTURN, "direct")
        what = f"offload, {cell}: of the machine's CPU beyond that of forwarding, at most 0.1 of coturn's"
        if not rounds:
            c.add(what, False, "not measured")
            continue

        def beyond(results, name):
            return max(figures.SMALL, figures.accounted(results[name]) - figures.accounted(results["direct"]))

        s = figures.Spread([beyond(r, ME) / beyond(r, COTURN) for r in rounds])
        mine, theirs = (figures.Spread([beyond(r, name) for r in rounds]).median for name in (ME, COTURN))
        c.add(what, s.median <= 0.1, f"{s.median:.3f} ({s.values[0]:.3f}-{s.values[-1]:.3f}), {mine:,.0f} of {theirs:,.0f} ns a packet")
        added = [{**r, ME: {**r[ME], "added": r[ME]["latency_p99_us"] - r["direct"]["latency_p99_us"]},
                  COTURN: {**r[COTURN], "added": r[COTURN]["latency_p99_us"] - r["direct"]["latency_p99_us"]}} for r in rounds]
        c.at_most(f"offload, {cell}: added p99 below 100 us", added, ME, lambda r: r["added"], 100, "{:.0f} us", [COTURN])
        up = [r[ME].get("received_by_program") for r in rounds]
        known = [n for n in up if n is not None]
        c.add(f"offload, {cell}: no packet of a bound channel reaches user space", bool(known) and max(known) == 0,
              f"{max(known)} packets" if known else "the relay did not tell")


def check_idle(c, count):
    rounds = c.rounds("idle", "idle", ME)
    c.at_most(f"{count:,} allocations: CPU a packet at most 1.2 of that with 100", rounds, ME, figures.slower_with_many, 1.2, beside=[COTURN])
    c.at_most(f"{count:,} allocations: at most 2 KB of user memory each", rounds, ME, figures.grown("rss_kb", "after_traffic"), 2,
              "{:.2f} KB", [COTURN])
    c.at_most(f"{count:,} allocations: set up in at most 100 us of CPU each", rounds, ME,
              lambda r: r["many"]["set_up"]["server_cpu_ns"] / 1000 / r["many"]["sessions"], 100, "{:.1f} us", [COTURN])
    c.at_most(f"{count:,} allocations: each relays both ways", rounds, ME, lambda r: r["many"]["failures"], 0, "{:.0f} failures", [COTURN])


def check_keyframes(c):
    for cell in ("up", "down"):
        rounds = c.rounds("keyframes", cell, ME)

        def lost(name, rounds=rounds):
            return sum(max(0, r[name]["sent"] - r[name]["arrived"]) for r in rounds if name in r)

        what = f"keyframes, {cell}: not one packet lost in {len(rounds)} rounds"
        if not rounds:
            c.add(what, False, "not measured")
            continue
        beside = f"; coturn {lost(COTURN):,}" if COTURN in rounds[0] else ""
        c.add(what, lost(ME) == 0, f"{lost(ME):,}{beside} of {sum(r[ME]['sent'] for r in rounds):,}")


def check_flood(c, cells):
    for cell in cells:
        rounds = c.rounds("flood", cell, ME)
        c.at_most(f"flood, {cell}: calls lose less than 0.1 %", rounds, ME, figures.loss, 0.1, "{:.3f} %", [COTURN])
        c.at_most(f"flood, {cell}: Allocate p99 below 50 ms", rounds, ME,
                  figures.allocate_p99_ms, 50, "{:.1f} ms", [COTURN])


def all_shows(options):
    by_name = {p.name: p for p in all_profiles(options)}
    offload = Profile("offload", f"200 sessions, 1000 bytes at {options.offload_rate:,} packets/s over veth, forwarded by a program in the driver",
                      200, [plain("up", options.offload_rate, length=2), plain("down", options.offload_rate, length=2)])
    flood = by_name["flood"]
    floods = [cell.title for cell in flood.cells if cell.kind == "flood"]
    return [
        Show(1, "trains", [by_name["trains"]], [ME, COTURN, GRO], lambda c: check_trains(c, options.rate)),
        Show(2, "single packets", [by_name["saturation"], by_name["audio"]], [ME, COTURN, PLAIN],
             lambda c: check_singles(c, options.rate, options.audio_rate)),
        Show(3, "a program in the driver", [offload], [ME, COTURN, "direct"], lambda c: check_offload(c, options.offload_rate),
             network="veth", offload=True),
        Show(4, "many allocations", [by_name["idle"]], [ME, COTURN], lambda c: check_idle(c, by_name["idle"].sessions)),
        Show(5, "key frames", [by_name["keyframes"]], [ME, COTURN], check_keyframes),
        Show(6, "a flood", [flood], [ME, COTURN], lambda c: check_flood(c, floods)),
    ]
