"""Calls whose every packet is counted and compared: a client with a channel to a peer that sends back what it gets."""

import hashlib
import selectors
import socket
import ssl
import struct
import threading
import time

from cases import Failure
from clients import tls_context
from ports import big_buffer
from turn import LIFETIME, REFRESH, Client, StreamClient, channel_data

CHANNEL, PAYLOAD_BYTES = 0x4001, 160  # a multiple of four: over TLS nothing is filled up
PACKETS_A_SECOND = 10  # of each call, there and back
LAST_PACKETS_SECONDS = 30
NUMBER = struct.Struct("!Q")


def payload(number):
    return (NUMBER.pack(number) + hashlib.sha256(NUMBER.pack(number)).digest() * 5)[:PAYLOAD_BYTES]


class Call:
    def __init__(self, host, port, tls):
        self.tls = tls
        self.client = StreamClient(host, port, tls=tls_context()) if tls else Client(host, port)
        self.relayed = self.client.allocate()[0]
        self.peer = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind((host, 0))
        big_buffer(self.peer)
        if not tls:
            big_buffer(self.client.socket)
        self.client.bind(CHANNEL, self.peer.getsockname()[:2])
        self.client.socket.setblocking(False)
        self.peer.setblocking(False)
        self.name = f"{'TLS' if tls else 'UDP'} at {host}:{port}"
        self.sent = 0
        self.missing = {}  # number -> when it was sent
        self.longest = 0.0

    def send(self):
        try:
            self.client.socket.sendall(channel_data(payload(self.sent), CHANNEL))
        except (ssl.SSLWantWriteError, OSError) as e:
            raise Failure(f"{self.name}: cannot send: {e}") from None
        self.missing[self.sent] = time.monotonic()
        self.sent += 1

    def send_back(self):
        try:
            while True:
                data, source = self.peer.recvfrom(2000)
                self.peer.sendto(data, source)
        except BlockingIOError:
            pass

    def take(self):
        try:
            while True:
                data = self.client.socket.recv(1 << 16)
                if not self.tls:
                    self.got(data)
                    continue
                if not data:
                    raise Failure(f"{self.name}: the relay has closed the connection")
                self.client.got += data
                while len(self.client.got) >= 4 + PAYLOAD_BYTES:
                    whole, self.client.got = self.client.got[: 4 + PAYLOAD_BYTES], self.client.got[4 + PAYLOAD_BYTES :]
                    self.got(whole)
        except (ssl.SSLWantReadError, BlockingIOError):
            pass

    def got(self, whole):
        number = NUMBER.unpack_from(whole, 4)[0] if len(whole) == 4 + PAYLOAD_BYTES else None
        if number not in self.missing or whole != channel_data(payload(number), CHANNEL):
            raise Failure(f"{self.name}: {whole[:12].hex()} came, which was not sent or has come already")
        self.longest = max(self.longest, time.monotonic() - self.missing.pop(number))

    def ends(self):
        """It can be refreshed, and so ended, though the relay's realm or its password may be another by now."""
        self.client.must(REFRESH, [(LIFETIME, struct.pack("!I", 600))])
        self.client.must(REFRESH, [(LIFETIME, bytes(4))])

    def close(self):
        self.client.close()
        self.peer.close()


class Load(threading.Thread):
    """All calls, until they are told to end. `error`: why they ended before."""

    def __init__(self, calls):
        super().__init__(daemon=True)
        self.calls, self.error = calls, None
        self.sends, self.goes_on = True, True
        self.has_sent_all = threading.Event()

    def run(self):
        try:
            self.go()
        except Exception as e:
            self.error = f"{type(e).__name__}: {e}"

    def go(self):
        with selectors.DefaultSelector() as ready:
            for call in self.calls:
                ready.register(call.client.socket, selectors.EVENT_READ, call.take)
                ready.register(call.peer, selectors.EVENT_READ, call.send_back)
            began, sent = time.monotonic(), 0
            rate = PACKETS_A_SECOND * len(self.calls)
            while self.goes_on:
                if not self.sends:
                    self.has_sent_all.set()
                now = time.monotonic()
                due = int((now - began) * rate)  # one after the other, so that the rate is steady
                if due - sent > len(self.calls):
                    sent = due - len(self.calls)  # what was held up is not made up for
                while self.sends and sent < due:
                    self.calls[sent % len(self.calls)].send()
                    sent += 1
                for key, _ in ready.select(max(0.0, min(0.02, began + (sent + 1) / rate - now))):
                    key.data()

    def check(self):
        if self.error:
            raise Failure(self.error)

    def finish(self):
        """(sent, lost, seconds of the slowest)"""
        self.sends = False
        self.has_sent_all.wait(LAST_PACKETS_SECONDS)
        end = time.monotonic() + LAST_PACKETS_SECONDS
        while self.is_alive() and any(call.missing for call in self.calls) and time.monotonic() < end:
            time.sleep(0.02)
        self.goes_on = False
        self.join(30)
        self.check()
        return sum(c.sent for c in self.calls), sum(len(c.missing) for c in self.calls), max(c.longest for c in self.calls)

    def losers(self):
        return ", ".join(f"{len(c.missing)} of {c.name}" for c in self.calls if c.missing)
