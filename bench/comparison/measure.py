"""Alternated rounds: every server in turn, another one first in each round, and again when other programs were in the way."""

import sys
import time

from . import servers as programs


class Clock:
    """Ends a run in time: what was measured until then is kept."""

    def __init__(self, minutes):
        self.deadline = time.monotonic() + 60 * minutes

    def is_over(self):
        return time.monotonic() > self.deadline


def others(traffic):
    """What neither server nor load has used, in percent of one core: other programs of the machine, and ksoftirqd."""
    used = traffic["machine_cpu_ns"] - traffic["server_cpu_ns"] - traffic["load_cpu_ns"] - traffic.get("flood_cpu_ns", 0)
    return max(0.0, 100 * used / traffic["elapsed_ns"])


def rotated(items, by):
    by %= len(items)
    return items[by:] + items[:by]


def heard(take, options):
    """A measurement of the smoke test is so short that a busy machine may not run the server while it lasts: where nothing has come, a longer one."""
    for length in (1, 4, 16, 64) if options.quick else (1,):
        result = take(options.seconds * length)
        if result.get("arrived", result.get("allocations", 1)):
            break
    return result


def measure_cell(load, cell, options):
    if cell.kind == "flood":
        rate, train, addresses = cell.flood.split()
        load(f"flood {rate} {train} {options.flood_core} {addresses}")
        traffic = heard(lambda seconds: load(cell.command.format(seconds=seconds * cell.length)), options)
        strangers = load("calm")
        flood = strangers["flood"]
        share = traffic["elapsed_ns"] / max(1, flood["elapsed_ns"])
        return {**traffic, **strangers, "flood_cpu_ns": flood["cpu_ns"] * share}
    if cell.kind == "search":
        def search(seconds):
            found = load(cell.command.format(seconds=max(0.05, seconds * 0.6)))
            return {**found["best"], "search": {key: found[key] for key in ("rate", "load_bound", "steps", "delivered_a_second")}}
        return heard(search, options)
    return heard(lambda seconds: load(cell.command.format(seconds=seconds * cell.length)), options)


def measure_all(loads, order, cell, options, told=lambda: None):
    """All servers, one straight after the other. When other programs disturbed one of them all are measured again: what the others
    took decides, not the figures. When no attempt is quiet the quietest counts."""
    best = None
    for attempt in range(1 + options.repeats):
        results = {}
        for name in order:
            results[name] = measure_cell(loads[name], cell, options)
            told()
        disturbance = max(others(result) for result in results.values()) if cell.kind == "traffic" else 0
        if best is None or disturbance < best[0]:
            best = (disturbance, results, attempt)
        if disturbance <= options.disturbance:
            break
    for result in best[1].values():
        result["attempts"] = attempt + 1
    return best[1]


def live(profile, names, options, net, clock, save):
    """Servers that live side by side, idle while another is measured."""
    if not profile.direct:
        names = [name for name in names if name != "direct"]
    if profile.method == "send":
        names = [name for name in names if not name.startswith("floor-")]
    rounds = {cell.title: [] for cell in profile.cells}
    slots = len(names)
    sessions = min(profile.sessions, programs.RELAY_PORTS // slots - 64)
    if sessions < profile.sessions:
        print(f"  {sessions:,} sessions each: so many servers share the relay ports", flush=True)
    made = [programs.make(name, options, net, slot, slots) for slot, name in enumerate(names)]
    loads = {}
    try:
        for server in made:
            server.start()
        time.sleep(options.settle)  # what they still do after their start is not a packet's cost
        for server in made:
            loads[server.name] = programs.Load(server, sessions, profile.trains, profile.method).begin()
        renewed = time.monotonic()
        for number in range(options.rounds):
            if clock.is_over():
                print(f"  the time is over after {number} rounds", file=sys.stderr)
                break
            for cell in profile.cells:
                if time.monotonic() - renewed > 100:  # permissions last 300 s
                    for load in loads.values():
                        load("renew")
                    renewed = time.monotonic()
                results = measure_all(loads, rotated(names, number), cell, options)
                rounds[cell.title].append(results)
                print(f"  round {number + 1}, {cell.title}: " + ", ".join(f"{name} {told(r)}" for name, r in results.items()), flush=True)
            save(rounds)
    finally:
        for load in loads.values():
            load.close()
        for server in made:
            server.stop()
    return rounds


def alone(profile, names, options, net, clock, save):
    """One server at a time, which has the interfaces to itself: for a program in the driver, which would see all packets."""
    rounds = {cell.title: [] for cell in profile.cells}
    for number in range(options.rounds):
        if clock.is_over():
            break
        results = {cell.title: {} for cell in profile.cells}
        for name in rotated(names, number):
            server = programs.make(name, options, net).start()
            time.sleep(options.settle)
            load = programs.Load(server, profile.sessions, profile.trains, profile.method).begin()
            for cell in profile.cells:
                before = server.received()
                measure_cell(load, cell, options)  # neighbours and routes get known
                after = server.received()
                result = measure_cell(load, cell, options)
                in_the_end = server.received()
                if after is not None:
                    result["received_by_program"] = in_the_end - after
                    result["received_by_program_before"] = after - before
                results[cell.title][name] = result
            load.close()
            server.stop()
        for cell in profile.cells:
            rounds[cell.title].append(results[cell.title])
            print(f"  round {number + 1}, {cell.title}: " + ", ".join(f"{n} {told(r)}" for n, r in results[cell.title].items()), flush=True)
        save(rounds)
    return rounds


def fresh(profile, names, options, net, clock, save):
    """A fresh server for each measurement: storm and idle."""
    names = [name for name in names if name != "direct"]
    rounds = {profile.kind: []}
    take = {"storm": storm, "idle": idle}[profile.kind]
    for number in range(options.rounds):
        if clock.is_over():
            break
        results = {}
        for name in rotated(names, number):
            results[name] = take(profile, name, options, net)
            print(f"  round {number + 1}, {name}: {told(results[name])}", flush=True)
        rounds[profile.kind].append(results)
        save(rounds)
    return rounds


def storm(profile, name, options, net):
    return heard(lambda seconds: storm_for(seconds, profile, name, options, net), options)


def storm_for(seconds, profile, name, options, net):
    server = programs.make(name, options, net).start()
    time.sleep(options.settle)
    load = programs.Load(server, profile.sessions)
    result = load(f"storm {seconds * 2}")
    load.close()
    server.stop()
    return result


def idle(profile, name, options, net):
    few = relaying(100, name, options, net)
    many = relaying(profile.sessions, name, options, net)
    return {"few": few, "many": many}


def relaying(sessions, name, options, net):
    server = programs.make(name, options, net).start()
    time.sleep(options.settle)
    load = programs.Load(server, sessions)
    before = load("memory")
    set_up = load("set-up")
    time.sleep(0.2)
    after = load("memory")
    verified = load("verify")
    traffic = {way: heard(lambda seconds: load(f"traffic {way} {options.idle_rate} 1000 1 {seconds}"), options) for way in ("up", "down")}
    in_the_end = load("memory")
    load.close()
    server.stop()
    return {"sessions": sessions, "set_up": set_up, "verified": verified, "traffic": traffic,
            "memory": {"before": before, "after_set_up": after, "after_traffic": in_the_end},
            "failures": 2 * sessions + sessions - set_up["ready"] - verified["to_peer"] - verified["to_client"]}


def told(result):
    """A measurement in a few characters, while the run goes on."""
    if "few" in result:
        many = result["many"]
        return f"{many['set_up']['server_cpu_ns'] / 1000 / many['sessions']:.1f} us to set up, failures {many['failures']}"
    if "allocations" in result:
        return f"{result['allocations'] * 1e9 / max(1, result['set_up_ns']):,.0f} allocations/s"
    if "search" in result:
        return f"{result['search']['delivered_a_second']:,.0f}/s"
    if "probe" in result:
        return f"{100 * result['loss']:.2f} % lost, Allocate p99 {result['probe']['latency_p99_us'] / 1000:.1f} ms"
    return f"{result['server_cpu_ns'] / max(1, result['delivered']):,.0f} ns"
