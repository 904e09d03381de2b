"""The relay in the tower of three namespaces, forwarding in the driver: what the tests of the offload begin with."""

import os
import re
import time

from cases import Failure
from namespaces import ADDRESS, Network
from relay import Radiotower

LISTENERS = {ADDRESS["client", family]: ADDRESS["listener", family] for family in (4, 6)}
RELAYS = [ADDRESS["relay", family] for family in (4, 6)]
AUTOMATIC = '"auto"'


class Tower(Radiotower):
    """Listens on the side of the clients and relays from the side of the peers. Where clients and peers are one, as in tests made for
    loopback, `relays` may be the listeners' own addresses."""

    # Peers behind the tower are private addresses.
    def __init__(self, network, path, xdp=AUTOMATIC, settings=None, relays=None, users=()):
        super().__init__(path, 2)
        self.network, self.namespace, self.users = network, network.tower, users
        self.port = 3478
        self.servers = LISTENERS
        self.peers, self.peer_namespace = tuple(ADDRESS["peer", family] for family in (4, 6)), network.peer
        listen = ", ".join(f'"[{a}]:{self.port}"' if ":" in a else f'"{a}:{self.port}"' for a in LISTENERS.values())
        relays = ", ".join(f'"{address}"' for address in relays or RELAYS)
        self.settings.update({
            "listen.udp": f"[{listen}]", "listen.tcp": f"[{listen}]", "relay.addresses": f"[{relays}]", "offload.xdp": xdp,
            "peers.allow": '["10.77.0.0/16", "fd77::/16"]',
        })
        self.settings.update(settings or {})

    def answers(self):
        return "ready" in self.log()

    def offload(self):
        """What the line `ready` says of it."""
        said = re.search(r' ready: .*?offload=("[^"]*"|\S+)', self.log())
        return said.group(1).strip('"') if said else ""

    def wait_for_line(self, pattern, seconds=30.0, after=0):
        """The first line of the log behind `after` characters that matches."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in self.log()[after:].splitlines():
                if re.search(pattern, line):
                    return line
            time.sleep(0.01)
        raise Failure(f"no line of the log matches {pattern}: {self.log()[-2000:]}")

    def end(self):
        """Without a word about how: for a relay that was killed or frozen."""
        self.process.kill()
        self.process.wait()


def run_as_client(path):
    """Makes the namespaces and moves this program into the client's, where what it starts will be too."""
    network = Network()
    with Tower(network, path) as tower:
        if tower.offload() == "off":
            raise Failure(tower.log().strip().splitlines()[0])
    network.client.ip("link", "set", "lo", "up")
    network.client.enter()
    return network


def skipped(why):
    """Whether that is what a container does not allow. Whatever else is wrong, the cases will say."""
    return os.geteuid() != 0 or "not permitted" in str(why)
