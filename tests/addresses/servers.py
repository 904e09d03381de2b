"""What the relay asks, and whom its clients call: a DNS server, a STUN server and an echo, each as it is told."""

import socket
import struct
import threading

import turn
from ports import big_buffer


class Server:
    """Answers datagrams on a thread of its own until the test ends."""

    def __init__(self, opened):
        self.socket = opened
        self.socket.settimeout(None)
        big_buffer(self.socket)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            datagram, source = self.socket.recvfrom(65535)
            answer = self.answer(datagram, source)
            if answer is not None:
                self.socket.sendto(answer, source)

    def answer(self, datagram, source):
        raise NotImplementedError


class Echo(Server):
    def answer(self, datagram, source):
        return datagram


class FakeDns(Server):
    """One name with `addresses` of IPv4, in that order; None: no answer to anything."""

    def __init__(self, opened, name):
        self.name, self.addresses, self.asked = name, [], 0
        super().__init__(opened)

    def answer(self, datagram, source):
        if self.addresses is None:
            return None
        labels, at = [], 12
        while datagram[at]:
            labels.append(datagram[at + 1 : at + 1 + datagram[at]].decode())
            at += 1 + datagram[at]
        question = datagram[12 : at + 5]
        kind = struct.unpack_from("!H", datagram, at + 1)[0]
        known = ".".join(labels).lower() == self.name
        answers = [socket.inet_aton(a) for a in self.addresses] if known and kind == 1 else []
        self.asked += 1
        head = datagram[:2] + struct.pack("!HHHHH", 0x8180 if known else 0x8183, 1, len(answers), 0, 0)
        return head + question + b"".join(struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4) + a for a in answers)


class FakeStun(Server):
    """A NAT's view of whoever asks: `tells`; None: no answer."""

    def __init__(self, opened):
        self.tells, self.sources = None, set()
        super().__init__(opened)

    def answer(self, datagram, source):
        if self.tells is None or datagram[:2] != b"\x00\x01":
            return None
        self.sources.add(source[0])
        transaction = datagram[8:20]
        return turn.message(0x0101, [(0x0020, turn.xored(turn.xor_address(self.tells, source[1]), transaction))], transaction)
