"""A NAT in user space that does exactly what it is told: the client's namespace routes into a TUN device, and for each mapping there is a
UDP socket outside. Nothing about it is left to the kernel's connection tracking, so every behaviour of RFC 4787 can be had.

    client namespace:  tun0 10.78.0.2  ->  [Nat: a socket a mapping, 198.51.100.7]  ->  outside namespace: the server's addresses
"""

import fcntl
import os
import select
import socket
import struct
import threading
import time

from namespaces import HOME

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
CLIENT, PUBLIC = "10.78.0.2", "198.51.100.7"
MTU = 1500
KEYS = {"endpoint-independent": lambda a: None, "address-dependent": lambda a: a[0], "address and port-dependent": lambda a: a}


class Mapping:
    def __init__(self, outside, port):
        self.port, self.sent_to, self.used = port, set(), time.monotonic()  # `port`: the client's
        outside.enter()
        try:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        finally:
            HOME.enter()
        self.socket.bind((PUBLIC, 0))
        self.socket.setblocking(False)


def checksum(header):
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


class Nat:
    """`with Nat(...):` translates meanwhile. Set its attributes before."""

    def __init__(self, client, outside):
        self.client, self.outside = client, outside
        self.mapping = self.filtering = "endpoint-independent"
        self.hairpins, self.fragments, self.lifetime = True, True, 300.0
        self.mappings, self.whole, self.identification = {}, {}, 0
        client.enter()
        try:
            self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
        finally:
            HOME.enter()
        client.ip("addr", "add", f"{CLIENT}/24", "dev", "tun0")
        client.ip("link", "set", "tun0", "mtu", str(MTU), "up")
        client.ip("route", "add", "default", "dev", "tun0")

    def __enter__(self):
        self.stopping, self.failure = os.pipe(), None
        self.mappings, self.whole = {}, {}
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *_):
        os.write(self.stopping[1], b".")
        self.thread.join()
        for end in self.stopping:
            os.close(end)
        for mapping in self.mappings.values():
            mapping.socket.close()
        if self.failure:
            raise self.failure

    def close(self):
        os.close(self.tun)

    def run(self):
        try:
            while True:
                sockets = {m.socket.fileno(): m for m in self.mappings.values()}
                ready, _, _ = select.select([self.stopping[0], self.tun, *sockets], [], [])
                if self.stopping[0] in ready:
                    return
                for descriptor in ready:
                    if descriptor == self.tun:
                        self.from_client(os.read(self.tun, 65536))
                    else:
                        self.from_outside(sockets[descriptor])
        except Exception as e:  # told by __exit__
            self.failure = e

    def from_client(self, packet):
        if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_UDP:
            return
        header = (packet[0] & 15) * 4
        length, identification, place = struct.unpack_from("!HHH", packet, 2)
        payload, more, offset = packet[header:length], place & 0x2000, (place & 0x1FFF) * 8
        if more or offset:
            if not self.fragments:
                return
            parts = self.whole.setdefault(identification, {})
            parts[offset] = (payload, more)
            at, payload = 0, b""
            while at in parts:
                payload += parts[at][0]
                if not parts[at][1]:
                    break
                at = len(payload)
            else:
                return
            del self.whole[identification]
        source, destination, size = struct.unpack_from("!HHH", payload)
        to = (socket.inet_ntoa(packet[16:20]), destination)
        if to[0] == PUBLIC and not self.hairpins:
            return
        self.mapping_of(source, to).socket.sendto(payload[8:size], to)

    def mapping_of(self, port, to):
        key = (port, KEYS[self.mapping](to))
        mapping = self.mappings.get(key)
        if mapping and self.gone(mapping):
            mapping.socket.close()
            mapping = None
        if not mapping:
            mapping = self.mappings[key] = Mapping(self.outside, port)
        mapping.used = time.monotonic()
        mapping.sent_to.add(KEYS[self.filtering](to))
        return mapping

    def gone(self, mapping):
        return time.monotonic() - mapping.used >= self.lifetime

    def from_outside(self, mapping):
        try:
            data, source = mapping.socket.recvfrom(65536)
        except OSError:  # an ICMP message about what was sent
            return
        if self.gone(mapping) or KEYS[self.filtering](source) not in mapping.sent_to:
            return
        datagram = struct.pack("!HHHH", source[1], mapping.port, 8 + len(data), 0) + data
        if len(datagram) + 20 > MTU and not self.fragments:
            return
        self.identification = (self.identification + 1) & 0xFFFF
        step = (MTU - 20) // 8 * 8
        for offset in range(0, len(datagram), step):
            part = datagram[offset:offset + step]
            more = 0x2000 if offset + step < len(datagram) else 0
            header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(part), self.identification, more | offset // 8, 64, socket.IPPROTO_UDP, 0,
                                 socket.inet_aton(source[0]), socket.inet_aton(CLIENT))
            os.write(self.tun, header[:10] + struct.pack("!H", checksum(header)) + header[12:] + part)
