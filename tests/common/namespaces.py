"""Three network namespaces of a test's own, joined by veths: no packet leaves them, and they end with the test.

    client  eth0 10.77.0.2 ---- 10.77.0.1 inside  tower  outside 10.77.1.1 ---- 10.77.1.2 eth0  peer
"""

import atexit
import ctypes
import os
import socket
import subprocess

from cases import Failure

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
ADDRESS = {  # (place, family): address
    ("client", 4): "10.77.0.2", ("listener", 4): "10.77.0.1", ("relay", 4): "10.77.1.1", ("peer", 4): "10.77.1.2",
    ("client", 6): "fd77::2", ("listener", 6): "fd77::1", ("relay", 6): "fd77:1::1", ("peer", 6): "fd77:1::2",
}


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Namespace:
    def __init__(self, place):
        self.name = f"radiotower-{os.getpid()}-{place}"
        if os.path.exists(f"/run/netns/{self.name}"):  # of a test that was killed; its number has come round to us
            run("ip", "netns", "del", self.name)
        run("ip", "netns", "add", self.name)
        atexit.register(subprocess.run, ["ip", "netns", "del", self.name], capture_output=True)
        self.descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)

    def enter(self):
        if LIBC.setns(self.descriptor, CLONE_NEWNET) != 0:
            raise Failure(f"setns: {os.strerror(ctypes.get_errno())}")

    def ip(self, *words):
        return run("ip", "-n", self.name, *words)

    def do(self, *command):
        return run("ip", "netns", "exec", self.name, *command)

    def sysctl(self, key, value):
        self.do("sh", "-c", f"echo {value} > /proc/sys/{key}")

    def udp(self, address, port):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.enter()
        try:
            opened = socket.socket(family, socket.SOCK_DGRAM)
        finally:
            HOME.enter()
        opened.bind((address, port))
        opened.settimeout(30)
        return opened


class Home:
    """The namespace that this test was started in."""

    def __init__(self):
        self.descriptor = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    enter = Namespace.enter


HOME = Home()


class Network:
    """`bridged`: the tower's interfaces are bridges, which have no driver for a program, and the veths their ports."""

    made = 0

    def __init__(self, bridged=False):
        Network.made += 1
        self.client, self.tower, self.peer = (Namespace(f"{place}-{Network.made}") for place in ("client", "tower", "peer"))
        for place, near, far, mac in (("client", "inside", "listener", 1), ("peer", "outside", "relay", 2)):
            end = getattr(self, place)
            here, there = f"02:00:00:00:0{mac}:01", f"02:00:00:00:0{mac}:02"
            veth = near + "-port" if bridged else near
            self.tower.ip("link", "add", veth, "address", f"02:00:00:00:0{mac}:03" if bridged else here, "type", "veth",
                          "peer", "name", "eth0", "address", there, "netns", end.name)
            if bridged:
                self.tower.ip("link", "add", near, "address", here, "type", "bridge")
                self.tower.ip("link", "set", veth, "master", near, "up")
            # A veth takes what a program sends only while its other end polls; and the sums have to be in the packets.
            end.do("ethtool", "-K", "eth0", "gro", "on", "tx", "off")
            for family, length in ((4, 24), (6, 64)):
                nodad = ["nodad"] if family == 6 else []
                end.ip("addr", "add", f"{ADDRESS[place, family]}/{length}", "dev", "eth0", *nodad)
                self.tower.ip("addr", "add", f"{ADDRESS[far, family]}/{length}", "dev", near, *nodad)
            end.ip("link", "set", "eth0", "up")
            self.tower.ip("link", "set", near, "up")
            for family in (4, 6):
                known = ["dev", "eth0", "nud", "permanent"]
                end.ip("neigh", "replace", ADDRESS[far, family], "lladdr", here, *known)
                known[1] = near
                self.tower.ip("neigh", "replace", ADDRESS[place, family], "lladdr", there, *known)
        # Two clients of one relay meet on its loopback interface.
        self.tower.ip("link", "set", "lo", "up")
        # To the relayed address, for a peer on the client's side.
        self.client.ip("route", "add", "10.77.1.0/24", "via", ADDRESS["listener", 4])
        for version in ("ipv4", "ipv6"):
            self.tower.sysctl(f"net/{version}/conf/lo/forwarding", 1)
