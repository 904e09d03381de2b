"""Loads whose figures are known: what a client does is written down beside it, to be compared with a scrape."""

import collections
import os
import select
import socket
import ssl
import struct
import subprocess

from cases import Failure
from ports import big_buffer
from relay import rest_credential
from scrape import series
from turn import (ALLOCATE, BINDING, LIFETIME, PATIENCE, PERMISSION, REFRESH, UDP, XOR_PEER, XOR_RELAYED, Client, StreamClient, address_in, channel_data,
                  error_of, message, parse, xor_address)

CHANNEL = 0x4001
METHODS = {BINDING: "binding", ALLOCATE: "allocate", REFRESH: "refresh", PERMISSION: "create_permission", 0x0009: "channel_bind",
           0x000A: "connect", 0x000B: "connection_bind"}
CODES = {0: "success"}


class DtlsClient(StreamClient):
    """Through `openssl s_client`: what is written at once is a record. The next is not written before the last one has had its effect, so that
    they do not run together."""

    def __init__(self, server, port, user, password):
        self.server, self.user, self.password = server, user, password
        self.realm = self.nonce = None
        self.got = b""
        self.process = subprocess.Popen(["openssl", "s_client", "-dtls1_2", "-quiet", "-no_ign_eof", "-nocommands", "-connect", f"{server}:{port}"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)

    def send(self, datagram):
        os.write(self.process.stdin.fileno(), datagram)

    def more(self, timeout):
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            return False
        data = os.read(self.process.stdout.fileno(), 65536)
        if not data:
            raise ConnectionResetError("openssl has ended")
        self.got += data
        return True

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def connect(relay, transport, name, credential=None):
    user, password = credential or rest_credential(name)
    if transport == "udp":
        return Client("127.0.0.1", relay.port, user=user, password=password)
    if transport == "dtls":
        return DtlsClient("127.0.0.1", relay.tls_port, user, password)
    tls = transport == "tls"
    return StreamClient("127.0.0.1", relay.tls_port if tls else relay.port, user=user, password=password, tls=tls_context() if tls else None)


class Load:
    """What is done through it is counted in `expected`, as the relay is to count it."""

    def __init__(self, relay, ring):
        self.relay, self.ring = relay, ring
        self.expected = collections.Counter()
        self.authenticated = 0
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind(("127.0.0.1", 0))
        big_buffer(self.peer)
        self.peer.settimeout(PATIENCE)
        self.clients = []

    def close(self):
        for client in self.clients:
            client.close()
        self.peer.close()

    def count(self, name, number=1, /, **labels):
        self.expected[series(name, **labels)] += number

    def requested(self, method, code=0):
        self.count("radiotower_requests_total", method=METHODS[method], code=CODES.get(code, str(code)))

    def dropped(self, reason, number=1):
        self.count("radiotower_dropped_packets_total", number, reason=reason)

    def path(self, transport):
        return {"udp": self.ring, "dtls": "dtls"}.get(transport, "stream")

    def relayed(self, transport, direction, size):
        labels = {"direction": direction, "transport": transport, "path": self.path(transport)}
        self.count("radiotower_relayed_packets_total", **labels)
        self.count("radiotower_relayed_bytes_total", size, **labels)

    def ask(self, client, method, attributes=(), code=0, **more):
        """An authenticated request, whose answer is to have that code."""
        if client.nonce is None:
            client.learn_nonce()
            self.requested(ALLOCATE, 401)
        answer = client.request(method, attributes, **more)
        if answer is None or error_of(answer) != code:
            raise Failure(f"{METHODS[method]}: {answer and error_of(answer)} instead of {code}")
        self.requested(method, code)
        if code != 401:
            self.authenticated += 1
        return answer

    def client(self, transport, name, credential=None):
        client = connect(self.relay, transport, name, credential)
        self.clients.append(client)
        if transport in ("tls", "dtls"):
            self.count("radiotower_handshakes_total", protocol=transport, outcome="done")
        if transport in ("tcp", "tls"):
            self.count("radiotower_connections_accepted_total")
        return client

    def allocate(self, client, code=0, transport=UDP):
        answer = self.ask(client, ALLOCATE, [transport], code)
        if code:
            return None
        self.count("radiotower_allocations_made_total")
        return address_in(parse(answer)[1][XOR_RELAYED], answer[8:20])

    def call(self, transport, packets, size):
        """An allocation with a channel; so many packets each way through it, and as Send and Data indications."""
        client = self.client(transport, f"call-{transport}")
        relayed = self.allocate(client)
        peer = self.peer.getsockname()
        self.ask(client, PERMISSION, [(XOR_PEER, xor_address("127.0.0.1", 0))])
        for i in range(packets):  # without a channel: indications both ways
            client.send(client.indication(peer, bytes(size)))
            self.arrives(size)
            self.relayed(transport, "to_peer", size)
            self.peer.sendto(bytes(size), relayed)
            if client.receive() is None:
                raise Failure(f"{transport}: no Data indication {i}")
            self.relayed(transport, "to_client", size)
        self.ask(client, 0x0009, [(0x0C, struct.pack("!HH", CHANNEL, 0)), (XOR_PEER, xor_address(*peer))])
        for i in range(packets):
            client.send(channel_data(bytes(size), CHANNEL))
            self.arrives(size)
            self.relayed(transport, "to_peer", size)
            self.peer.sendto(bytes(size), relayed)
            if client.receive() != channel_data(bytes(size), CHANNEL):
                raise Failure(f"{transport}: packet {i} did not come back")
            self.relayed(transport, "to_client", size)
        return client, relayed

    def arrives(self, size):
        if len(self.peer.recv(70000)) != size:
            raise Failure("the peer got something else")

    def end(self, client):
        self.ask(client, REFRESH, [(LIFETIME, bytes(4))])
        self.count("radiotower_allocations_ended_total", reason="refreshed_to_zero")

    def bindings(self, client, number):
        for _ in range(number):
            if client.ask(message(BINDING)) is None:
                raise Failure("Binding was not answered")
            self.requested(BINDING)


def errors(load):
    """Each code that a client can provoke, a known number of times."""
    client = load.client("udp", "errors")
    load.allocate(client)
    for _ in range(2):
        load.ask(client, ALLOCATE, [UDP], 437)
    for _ in range(3):
        load.ask(client, PERMISSION, [(XOR_PEER, xor_address("10.1.2.3", 0))], 403)
    user, password = rest_credential("somebody-else")
    for _ in range(4):
        load.ask(client, REFRESH, [(LIFETIME, bytes(4))], 441, user=user, password=password)
    for _ in range(5):
        load.ask(client, REFRESH, [], 401, password="wrong")
    load.ask(client, 0x0009, [(0x0C, struct.pack("!HH", 0x3FFF, 0)), (XOR_PEER, xor_address("127.0.0.1", 9))], 400)
    load.end(client)
    load.ask(client, REFRESH, [(LIFETIME, bytes(4))], 437)
    credential = rest_credential("quota")
    for i in range(3):  # limits.allocations_per_user = 2
        again = load.client("udp", "", credential)
        load.allocate(again, 486 if i == 2 else 0)
        if i < 2:
            load.left = getattr(load, "left", []) + [again]


def drops(load):
    """What is thrown away without a word, a known number of times. A request behind it tells that it has come."""
    client = load.client("udp", "drops")
    stranger = load.client("udp", "stranger")
    for _ in range(3):
        stranger.send(channel_data(b"nobody's", CHANNEL))
    load.dropped("no_allocation", 3)
    for _ in range(2):
        stranger.send(b"\x0a not ours")
    load.dropped("not_ours", 2)
    stranger.send(message(BINDING)[:19])
    load.dropped("malformed")
    load.bindings(stranger, 1)
    relayed = load.allocate(client)
    for _ in range(4):
        client.send(channel_data(b"no channel", CHANNEL))
    load.dropped("no_channel", 4)
    for _ in range(5):
        client.send(client.indication(("127.0.0.1", 9), b"no permission"))
    load.dropped("no_permission", 5)
    client.send(client.indication(("10.1.2.3", 9), b"denied"))
    load.dropped("peer_denied")
    load.ask(client, REFRESH)
    for _ in range(6):
        load.peer.sendto(b"without permission", relayed)
    load.dropped("peer_no_permission", 6)
    load.end_later = client


def joined(load, transport, to_peer, to_client):
    """RFC 6062: so many bytes through a connection that is joined with one of a peer."""
    control = load.client(transport, f"joined-{transport}")
    load.allocate(control, transport=(0x0019, bytes([6, 0, 0, 0])))
    load.ask(control, PERMISSION, [(XOR_PEER, xor_address("127.0.0.1", 0))])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        answer = load.ask(control, 0x000A, [(XOR_PEER, xor_address(*listener.getsockname()))])
        peer = listener.accept()[0]
    peer.settimeout(PATIENCE)
    data = load.client(transport, "", (control.user, control.password))
    load.ask(data, 0x000B, [(0x002A, parse(answer)[1][0x002A])])
    for event in ("connect", "joined"):
        load.count("radiotower_peer_connections_total", event=event)

    def carried(source, sink, size, direction):
        source.sendall(bytes(size))
        while size > 0:
            piece = sink.recv(min(size, 65536))
            if not piece:
                raise Failure(f"{direction}: the end, {size} bytes too early")
            size -= len(piece)

    data.socket.settimeout(PATIENCE)
    with peer:
        carried(data.socket, peer, to_peer, "to_peer")
        carried(peer, data.socket, to_client, "to_client")
        load.count("radiotower_relayed_bytes_total", to_peer, direction="to_peer", transport=transport, path="joined")
        load.count("radiotower_relayed_bytes_total", to_client, direction="to_client", transport=transport, path="joined")
        yield  # while it is up
    load.end(control)
    load.count("radiotower_peer_connections_total", event="ended")
