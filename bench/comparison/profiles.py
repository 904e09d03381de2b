"""What is measured. A profile is a set of sessions and the cells that are measured over them, one after the other."""

from dataclasses import dataclass, field


@dataclass
class Cell:
    title: str
    command: str           # for `radiotower load --control`; {seconds} is filled in
    kind: str = "traffic"  # or "search", "flood"
    length: float = 1.0    # in measuring times
    flood: str = ""        # "RATE TRAIN" of the flood beside it


@dataclass
class Profile:
    name: str
    summary: str
    sessions: int
    cells: list = field(default_factory=list)
    trains: bool = False   # the load reads trains (UDP GRO)
    kind: str = "live"     # all servers at once; "storm" and "idle": a fresh server for each measurement
    direct: bool = True    # makes sense without a relay
    method: str = "channel"  # or "send": indications, which the floor programs do not know

    def seconds(self, options):
        """About how long one server takes for one round."""
        if self.kind == "storm":
            return options.seconds * 2 + 2.5
        if self.kind == "idle":
            return 5 + options.seconds * 4 + self.sessions / 4000
        cost = {"traffic": 1.1, "flood": 1.2, "search": 15 * 0.6}
        return sum(cell.length * options.seconds * cost[cell.kind] + 0.12 for cell in self.cells)


def plain(way, rate, size=1000, train=1, length=1.0):
    title = f"{way}, {'saturated' if rate == 0 else f'{rate:,}/s'}"
    return Cell(title, f"traffic {way} {rate} {size} {train} {{seconds}}", length=length)


def scheduled(name, way, rate=0, train=1):
    titles = {"up": "up", "down": "down", "both": "both ways"}
    title = titles[way] + (f", {rate:,}/s" if rate else "")
    return Cell(title, f"profile {name} {way} {rate} {train} {{seconds}}")


def found(way, size=1000, train=1):
    return Cell(f"{way}, at most 0.1 % lost", f"search {way} {size} {train} {{seconds}} 20000", kind="search")


def all_profiles(options):
    rate = options.rate
    idle = min(16000, options.descriptors - 1000)
    return [
        Profile("saturation", "200 sessions, 1000 bytes, one packet at a time", 200,
                [plain("up", 0), plain("down", 0), plain("up", rate), plain("down", rate)]),
        Profile("capacity", "200 sessions, 1000 bytes: the most that is delivered at no more than 0.1 % loss", 200,
                [found("up"), found("down")]),
        Profile("trains", "200 sessions, trains of 8 x 1000 bytes (the sender uses UDP GSO)", 200,
                [plain("up", 0, train=8), plain("down", 0, train=8), plain("up", rate, train=8), plain("down", rate, train=8)],
                trains=True),
        Profile("indications", "200 sessions, 1000 bytes by Send and Data indications", 200,
                [plain("up", 0), plain("down", 0), plain("up", rate), plain("down", rate)], method="send"),
        Profile("audio", f"5,000 sessions of 160-byte packets, both ways, slowed to {options.audio_rate:,} packets/s", 5000,
                [scheduled("audio", "both", options.audio_rate)]),
        Profile("video", "50 sessions, bursts of 10 to 30 x 1150 bytes every 33 ms, sent one by one", 50,
                [scheduled("video", "up"), scheduled("video", "down")]),
        Profile("keyframes", "50 sessions, bursts of 30 x 1150 bytes every 33 ms, sent one by one", 50,
                [scheduled("keyframes", "up"), scheduled("keyframes", "down")]),
        Profile("screen", "50 sessions, bursts of 60 to 100 x 1150 bytes every 200 ms and a trickle", 50, [scheduled("screen", "up")]),
        Profile("mixed", "100 sessions, 70 audio and 30 video, both ways", 100, [scheduled("mixed", "both")]),
        Profile("flood", "100 mixed calls while strangers send junk", 100,
                [scheduled("mixed", "both"), flood(0, 1), flood(0, 40), flood(0, 40, 4000)], direct=False),
        Profile("storm", "1,000 clients make and give back allocations, 64 at a time", 1000, kind="storm", direct=False),
        Profile("idle", f"{idle:,} allocations, 100 beside them for comparison", idle, kind="idle", direct=False),
    ]


def flood(rate, train, addresses=8):
    title = f"junk {rate:,}/s" if rate else f"junk in trains of {train}, as much as goes" if train > 1 else "junk one by one, as much as goes"
    if addresses != 8:
        title += f", from {addresses:,} addresses"
    return Cell(title, "profile flood both 0 1 {seconds}", kind="flood", length=3.0, flood=f"{rate} {train} {addresses}")
