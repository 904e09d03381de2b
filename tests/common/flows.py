"""Calls with packets on them, both ways, counted one by one: who loses one notices."""

import selectors
import socket
import ssl
import struct
import threading
import time

from cases import Failure
from ports import big_buffer
from turn import ALLOCATE, REFRESH, UDP, LIFETIME, XOR_RELAYED, Client, StreamClient, address_in, channel_data, error_of, is_channel_data, parse

CHANNEL = 0x4001


def connect(relay, transport, host="127.0.0.1", **more):
    if transport == "udp":
        return Client(host, relay.port, **more)
    context = None
    if transport == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return StreamClient(host, relay.tls_port if context else relay.port, tls=context, **more)


class Call:
    """A client with a channel to a peer of our own."""

    def __init__(self, relay, transport, **more):
        self.transport = transport
        self.client = connect(relay, transport, **more)
        self.client.learn_nonce()
        self.allocate = self.client.signed(ALLOCATE, [UDP])
        self.answer = self.client.ask(self.allocate, 30)
        if self.answer is None or error_of(self.answer):
            raise Failure(f"Allocate over {transport}: {self.answer and error_of(self.answer)}")
        self.relayed = address_in(parse(self.answer)[1][XOR_RELAYED], self.answer[8:20])
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind(("127.0.0.1", 0))
        big_buffer(self.peer)
        if transport == "udp":
            big_buffer(self.client.socket)
        self.client.bind(CHANNEL, self.peer.getsockname()[:2])
        self.address = self.client.socket.getsockname()[:2]
        self.flowing = True
        self.to_peer = self.to_client = 0  # sent
        self.at_peer, self.at_client = set(), set()  # numbers that came
        self.answers = []  # to requests, while packets flow

    def tick(self):
        self.client.send(channel_data(struct.pack("!I", self.to_peer) + bytes(96), CHANNEL))
        self.to_peer += 1
        self.peer.sendto(struct.pack("!I", self.to_client) + bytes(96), self.relayed)
        self.to_client += 1

    def lost(self):
        return self.to_peer - len(self.at_peer) + self.to_client - len(self.at_client)

    def close(self):
        self.client.close()
        self.peer.close()


class Flows:
    """`calls` with `rate` packets a second and direction each, until stop(). Reads all the while."""

    def __init__(self, calls, rate=10.0):
        self.calls, self.interval = calls, 1.0 / rate
        self.over = threading.Event()
        self.broken = None
        self.lock = threading.RLock()
        self.selector = selectors.DefaultSelector()
        for call in calls:
            self.selector.register(call.peer, selectors.EVENT_READ, (call, True))
            self.selector.register(call.client.socket, selectors.EVENT_READ, (call, False))
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            next_tick = time.monotonic()
            while not self.over.is_set():
                with self.lock:
                    if time.monotonic() >= next_tick:
                        next_tick = time.monotonic() + self.interval
                        for call in self.calls:
                            if call.flowing:
                                call.tick()
                    self.read(0.005)
                time.sleep(0.001)
        except Exception as e:
            self.broken = f"{type(e).__name__}: {e}"

    def read(self, patience):
        for key, _ in self.selector.select(patience):
            call, is_peer = key.data
            if is_peer:
                call.at_peer.add(struct.unpack_from("!I", call.peer.recv(2000))[0])
                continue
            while (datagram := call.client.receive(0.001)) is not None:
                if is_channel_data(datagram):
                    call.at_client.add(struct.unpack_from("!I", datagram, 4)[0])
                else:
                    call.answers.append(datagram)

    def request(self, call, kind, attributes=(), again=None):
        """Sent while packets flow; the answer. `again`: a message as it is."""
        message = again or call.client.signed(kind, attributes)
        with self.lock:
            call.client.send(message)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with self.lock:
                for answer in call.answers:
                    if answer[8:20] == message[8:20]:
                        call.answers.remove(answer)
                        return answer
                if self.broken:
                    raise Failure(self.broken)
            time.sleep(0.005)
        raise Failure(f"no answer to {kind:#x} over {call.transport} while packets flow")

    def settle(self, calls, patience=30.0):
        """Sends no more on these, and waits for what is on its way. How many are lost."""
        for call in calls:
            call.flowing = False
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if self.broken:
                raise Failure(self.broken)
            with self.lock:
                if not any(call.lost() for call in calls):
                    return 0
            time.sleep(0.01)
        return sum(call.lost() for call in calls)

    def hang_up(self, call):
        """Ends its allocation as a client does. How many packets it has lost."""
        lost = self.settle([call])
        answer = self.request(call, REFRESH, [(LIFETIME, bytes(4))])
        if error_of(answer):
            raise Failure(f"Refresh with lifetime 0: {error_of(answer)}")
        with self.lock:
            self.selector.unregister(call.peer)
            self.selector.unregister(call.client.socket)
        return lost

    def packets(self):
        return sum(call.to_peer + call.to_client for call in self.calls)

    def stop(self):
        self.over.set()
        self.thread.join()
        for call in self.calls:
            call.close()
        self.selector.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
