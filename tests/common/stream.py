"""A steady stream of numbered packets both ways through a bound channel, and when each that arrived did so.

All times are of CLOCK_REALTIME: the kernel's own stamps of what has arrived (SO_TIMESTAMPNS), and those of a log.
"""

import select
import socket
import struct
import time

from cases import Failure
from ports import big_buffer
from turn import XOR_PEER, DATA, attributes_of, channel_data, is_channel_data

SO_TIMESTAMPNS = 35
NUMBERED = struct.Struct("!QQ")


class Call:
    """An allocation with one channel. `client_family` is of client and listener, `peer_family` of relayed address and peer."""

    def __init__(self, network, tower, client, peer_end, relayed, channel=0x4001):
        self.client, self.peer_end, self.relayed, self.channel = client, peer_end, relayed, channel
        self.peer = network.peer.udp(*peer_end)
        for opened in (client.socket, self.peer):
            opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            big_buffer(opened)
        self.sent_to_peer = self.sent_to_client = 0
        self.to_peer, self.to_client, self.indicated = [], [], []  # (arrived, number)
        self.bytes_to_peer = self.bytes_to_client = 0
        self.answers = []  # (arrived, STUN message)

    def bind(self):
        began = time.time()
        self.client.bind(self.channel, self.peer_end)
        return began, time.time()

    def up(self, size=0):
        self.sent_to_peer += 1
        try:
            self.client.send(channel_data(NUMBERED.pack(self.sent_to_peer, 0) + bytes(size), self.channel))
        except ConnectionError:  # an ICMP error of one that came after the end of the relay
            pass

    def down(self, size=0):
        self.sent_to_client += 1
        try:
            self.peer.sendto(NUMBERED.pack(self.sent_to_client, 1) + bytes(size), self.relayed)
        except ConnectionError:  # an ICMP error of an earlier packet
            pass

    def both(self, size=0):
        self.up(size)
        self.down(size)

    def take(self):
        """Whatever has arrived since."""
        for data, at in received(self.peer):
            self.to_peer.append((at, NUMBERED.unpack_from(data)[0]))
            self.bytes_to_peer += len(data)
        for data, at in received(self.client.socket):
            if is_channel_data(data):
                self.to_client.append((at, NUMBERED.unpack_from(data, 4)[0]))
                self.bytes_to_client += len(data) - 4
                continue
            kind, found = attributes_of(data)
            if kind == 0x0017 and dict(found).get(DATA) and XOR_PEER in dict(found):
                self.indicated.append((at, NUMBERED.unpack_from(dict(found)[DATA])[0]))
            elif kind != 0x0017:  # ICMP is told in an indication too
                self.answers.append((at, data))

    def run(self, seconds, rate, events=()):
        """Sends `rate` packets a second in each direction. `events`: (seconds from now, function), in their order."""
        began, events, number = time.time(), list(events), 0
        while (now := time.time()) < began + seconds:
            if events and now >= began + events[0][0]:
                events.pop(0)[1]()
            due = int((now - began) * rate) + 1
            for _ in range(min(due - number, 50)):  # one that was held up does not make up for all of it at once
                self.both(50)
            number = due
            self.take()
            select.select([self.client.socket, self.peer], [], [], max(0, began + number / rate - time.time()))
        time.sleep(0.02)
        self.take()

    def last(self, directions=("to_peer", "to_client", "indicated")):
        """When the last packet arrived."""
        return max((getattr(self, d)[-1][0] for d in directions if getattr(self, d)), default=0.0)

    def must_all_have_arrived(self):
        end = time.monotonic() + 30
        while (len(self.to_peer) < self.sent_to_peer or len(self.to_client) < self.sent_to_client) and time.monotonic() < end:
            time.sleep(0.01)
            self.take()
        for sent, arrived in ((self.sent_to_peer, self.to_peer), (self.sent_to_client, self.to_client)):
            if [number for _, number in arrived] != list(range(1, sent + 1)):
                raise Failure(f"{sent} sent, {len(arrived)} arrived, or in another order")

    def close(self):
        self.client.close()
        self.peer.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def received(opened):
    opened.setblocking(False)
    while True:
        try:
            data, extra, _, _ = opened.recvmsg(4096, 64)
        except BlockingIOError:
            return
        except ConnectionError:
            continue
        seconds, nanoseconds = struct.unpack("qq", extra[0][2][:16])
        yield data, seconds + nanoseconds / 1e9
