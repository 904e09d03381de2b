"""Where clients, servers and peers stand: all on loopback, or in three network namespaces joined by veth pairs.

    rt-client-N  c0 10.81.S.A/16 ---- 10.81.255.1 t0  rt-tower-N  t1 10.82.255.1 ---- 10.82.0.1/16 p0  rt-peer-N

S is the slot of a server (each server has clients of its own), A the number of an address. The tower forwards, so that the same
packets can be sent without a relay.
"""

import atexit
import os
import shutil

from .processes import run

CLIENTS_PER_ADDRESS = 4000
ADDRESSES_PER_SLOT = 16  # what the load uses before it begins again
SLOTS = 12


class Loopback:
    name = "loopback"
    tower = None
    listen = relay = "127.0.0.1"
    interfaces = []

    def load_flags(self, slot):
        # All below 32768: a port of the relays' range that a client holds would be the server's loss.
        return ["--clients", f"127.{64 + slot}.0.1:10000", "--peers", f"127.0.0.1:{26000 + 100 * slot}"]

    def close(self):
        pass


class Veth:
    """`whole_trains`: False has the sending interfaces cut every train (gso_max_segs 1), as a network card without GSO does."""

    def __init__(self, whole_trains, offload):
        if os.geteuid() != 0:
            raise SystemExit("network namespaces need root")
        self.name = "veth" if whole_trains else "veth-gso1"
        self.listen, self.relay = "10.81.255.1", "10.82.255.1"
        self.interfaces = ["t0", "t1"]
        number = os.getpid()
        self.client, self.tower, self.peer = (f"rt-{part}-{number}" for part in ("client", "tower", "peer"))
        atexit.register(self.close)
        for namespace in (self.client, self.tower, self.peer):
            run("ip", "netns", "add", namespace)
            self._in(namespace, "ip", "link", "set", "lo", "up")
        for outer, name, inner in ((self.client, "c0", "t0"), (self.peer, "p0", "t1")):
            run("ip", "link", "add", name, "netns", outer, "type", "veth", "peer", "name", inner, "netns", self.tower)
        addresses = "".join(f"address add 10.81.{slot}.{address}/16 dev c0\n" for slot in range(SLOTS)
                            for address in range(1, ADDRESSES_PER_SLOT + 1))
        run("ip", "-netns", self.client, "-batch", "-", text=addresses)
        self._in(self.peer, "ip", "address", "add", "10.82.0.1/16", "dev", "p0")
        self._in(self.tower, "ip", "address", "add", f"{self.listen}/16", "dev", "t0")
        self._in(self.tower, "ip", "address", "add", f"{self.relay}/16", "dev", "t1")
        # The tower's last: a veth notices when it comes up, and not later, that its other end polls.
        ends = ((self.client, "c0"), (self.peer, "p0"), (self.tower, "t0"), (self.tower, "t1"))
        for namespace, device in ends:
            if not whole_trains:
                self._in(namespace, "ip", "link", "set", device, "gso_max_segs", "1")
            if offload:
                self._offload(namespace, device)
            self._in(namespace, "ip", "link", "set", device, "up")
        self._in(self.client, "ip", "route", "add", "default", "via", self.listen)
        self._in(self.peer, "ip", "route", "add", "default", "via", self.relay)
        # This namespace's own setting, through the /proc of a process in it.
        self._in(self.tower, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self._in(self.client, "sh", "-c", "echo 10000 32000 > /proc/sys/net/ipv4/ip_local_port_range")

    def _in(self, namespace, *command):
        run("ip", "netns", "exec", namespace, *command)

    def _offload(self, namespace, device):
        """A program in the driver sees each packet as it will be received: whole, and with its checksum in it. And a veth takes
        redirected packets only when its other end polls (GRO on)."""
        if not shutil.which("ethtool"):
            raise SystemExit("--offload needs ethtool")
        if namespace == self.tower:
            return
        self._in(namespace, "ethtool", "-K", device, "tx", "off")
        self._in(namespace, "ethtool", "-K", device, "gro", "on")

    def load_flags(self, slot):
        return ["--clients", f"10.81.{slot}.1:10000", "--peers", f"10.82.0.1:{20000 + 100 * slot}",
                "--client-netns", self.client, "--peer-netns", self.peer]

    def close(self):
        for namespace in (self.client, self.tower, self.peer):
            os.system(f"ip netns delete {namespace} 2>/dev/null")
        atexit.unregister(self.close)


def make(name, offload):
    return Loopback() if name == "loopback" else Veth(name == "veth", offload)
