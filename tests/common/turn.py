"""A TURN client for tests: messages by hand, so that wrong ones can be made too."""

import hashlib
import hmac
import os
import socket
import struct
import time
import zlib

from cases import Failure
from relay import PASSWORD, USER

COOKIE = 0x2112A442
BINDING, ALLOCATE, REFRESH, SEND, PERMISSION, BIND = 0x0001, 0x0003, 0x0004, 0x0016, 0x0008, 0x0009
DATA_INDICATION, SUCCESS, ERROR = 0x0017, 0x0100, 0x0110
CHANNEL_NUMBER, LIFETIME, XOR_PEER, DATA, XOR_RELAYED, FAMILY = 0x0C, 0x0D, 0x12, 0x13, 0x16, 0x17
ADDITIONAL_FAMILY = 0x8000
UDP = (0x0019, bytes([17, 0, 0, 0]))
PATIENCE = 30.0  # seconds, for what is to come: on a busy machine it comes late


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def message(kind, attributes=(), transaction=None):
    body = b"".join(attribute(k, v) for k, v in attributes)
    return struct.pack("!HHI", kind, len(body), COOKIE) + (transaction or os.urandom(12)) + body


def attributes_of(datagram):
    """The kind of a message, and its attributes in their order."""
    kind, length, cookie = struct.unpack_from("!HHI", datagram)
    if cookie != COOKIE or length + 20 != len(datagram):
        raise Failure(f"not a STUN message: {datagram.hex()}")
    found, at = [], 20
    while at < len(datagram):
        k, size = struct.unpack_from("!HH", datagram, at)
        found.append((k, datagram[at + 4 : at + 4 + size]))
        at += 4 + size + (-size % 4)
    return kind, found


def parse(datagram):
    """The kind of a message, and the first attribute of each type, which is the one that counts."""
    kind, found = attributes_of(datagram)
    return kind, dict(reversed(found))


def error_of(datagram):
    kind, found = parse(datagram)
    return found[9][2] * 100 + found[9][3] if kind & 0x0110 == 0x0110 else 0


def is_channel_data(datagram):
    return len(datagram) >= 4 and datagram[0] & 0xC0 == 0x40


def channel_data(payload, channel):
    return struct.pack("!HH", channel, len(payload)) + payload


def xor_address(host, port):
    """To be XORed with the transaction id by whoever knows it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    raw = socket.inet_pton(family, host)
    return bytes([0, 2 if ":" in host else 1]) + struct.pack("!H", port ^ 0x2112), raw


def xored(value, transaction):
    if not isinstance(value, tuple):
        return value
    head, raw = value
    return head + bytes(a ^ b for a, b in zip(raw, struct.pack("!I", COOKIE) + transaction))


def address_in(value, transaction):
    mask = struct.pack("!I", COOKIE) + transaction
    raw = bytes(a ^ b for a, b in zip(value[4:], mask))
    family = socket.AF_INET6 if value[1] == 2 else socket.AF_INET
    return socket.inet_ntop(family, raw), struct.unpack("!H", value[2:4])[0] ^ 0x2112


class Client:
    """`opened`: a bound socket, of another network namespace perhaps; else one of `local`, which is the server's address
    where both are on loopback."""

    def __init__(self, server, port, local=None, opened=None, user=USER, password=PASSWORD):
        self.server, self.user, self.password = server, user, password
        self.socket = opened
        if opened is None:
            self.socket = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind((local or server, 0))
        self.socket.connect((server, port))
        self.realm = self.nonce = None

    def send(self, datagram):
        self.socket.send(datagram)

    def receive(self, timeout=PATIENCE):
        self.socket.settimeout(timeout)
        try:
            return self.socket.recv(70000)
        except (socket.timeout, ConnectionError):
            return None

    def ask(self, datagram, timeout=PATIENCE):
        self.send(datagram)
        return self.receive(timeout)

    def learn_nonce(self):
        answer = self.ask(message(ALLOCATE, [UDP]))
        if answer is None:
            raise Failure("no answer to the first Allocate")
        _, found = parse(answer)
        self.realm, self.nonce = found[0x14], found[0x15]

    def signed(self, kind, attributes=(), user=None, password=None):
        user, password = user or self.user, password or self.password
        transaction = os.urandom(12)
        whole = [(k, xored(v, transaction)) for k, v in attributes]
        whole += [(0x06, user.encode()), (0x14, self.realm), (0x15, self.nonce)]
        plain = message(kind, whole, transaction)
        covered = plain[:2] + struct.pack("!H", len(plain) - 20 + 24) + plain[4:]
        key = hashlib.md5(f"{user}:{self.realm.decode()}:{password}".encode()).digest()
        whole = covered + struct.pack("!HH", 8, 20) + hmac.new(key, covered, hashlib.sha1).digest()
        whole = whole[:2] + struct.pack("!H", len(whole) - 20 + 8) + whole[4:]
        return whole + struct.pack("!HHI", 0x8028, 4, zlib.crc32(whole) ^ 0x5354554E)

    def request(self, kind, attributes=(), user=None, password=None):
        """Authenticated; returns the answer."""
        if self.nonce is None:
            self.learn_nonce()
        return self.ask(self.signed(kind, attributes, user, password))

    def must(self, kind, attributes=()):
        """The answer to a request that is to succeed. Relayed packets that come in between are thrown away."""
        answer = self.request(kind, attributes)
        for _ in range(10000):
            if answer is None or not is_channel_data(answer):
                break
            answer = self.receive()
        if answer is None or error_of(answer) != 0:
            raise Failure(f"request {kind:#x}: {error_of(answer) if answer else 'no answer'}")
        return answer

    def allocate(self, *more):
        """Of the server's own family unless `more` says otherwise. Returns the relayed addresses."""
        wanted = list(more)
        if not wanted and ":" in self.server:
            wanted = [(FAMILY, bytes([2, 0, 0, 0]))]
        answer = self.must(ALLOCATE, [UDP, *wanted])
        return [address_in(v, answer[8:20]) for k, v in attributes_of(answer)[1] if k == XOR_RELAYED]

    def bind(self, channel, peer):
        self.must(BIND, [(CHANNEL_NUMBER, struct.pack("!HH", channel, 0)), (XOR_PEER, xor_address(*peer))])

    def permit(self, host):
        self.must(PERMISSION, [(XOR_PEER, xor_address(host, 0))])

    def indication(self, peer, data):
        transaction = os.urandom(12)
        return message(SEND, [(XOR_PEER, xored(xor_address(*peer), transaction)), (DATA, data)], transaction)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class StreamClient(Client):
    """Over TCP, or TLS with `tls` (an ssl.SSLContext): messages as the stream cuts them. `before`: bytes that go first, as a PROXY header does."""

    def __init__(self, server, port, source=None, tls=None, before=b"", user=USER, password=PASSWORD, name="turn.example.org"):
        self.server, self.user, self.password = server, user, password
        self.realm = self.nonce = None
        self.got = b""
        self.at_once = 1 << 20  # bytes that are read together
        self.socket = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(PATIENCE)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((server, port))
        if before:
            self.socket.sendall(before)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=name)

    def send(self, datagram):
        if is_channel_data(datagram):
            datagram += bytes(-len(datagram) % 4)
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(datagram)

    def more(self, timeout):
        """False: nothing came in time. Raises ConnectionError when the other side has ended."""
        self.socket.settimeout(timeout)
        try:
            data = self.socket.recv(self.at_once)
        except socket.timeout:
            return False
        if not data:
            raise ConnectionResetError("the relay has closed the connection")
        self.got += data
        return True

    def receive(self, timeout=PATIENCE):
        end = time.monotonic() + timeout
        while True:
            if len(self.got) >= 4:
                length = struct.unpack_from("!H", self.got, 2)[0]
                size = 4 + length + -length % 4 if is_channel_data(self.got) else 20 + length
                if len(self.got) >= size:
                    whole, self.got = self.got[:size], self.got[size:]
                    return whole[: 4 + length] if is_channel_data(whole) else whole
            left = end - time.monotonic()
            if left <= 0 or not self.more(left):
                return None

    def closed_after(self, patience):
        """Seconds until the relay closed it; what came before is in `got`."""
        began = time.monotonic()
        try:
            while True:
                left = began + patience - time.monotonic()
                if left <= 0 or not self.more(left):
                    raise Failure(f"still open after {patience:.0f} s")
        except OSError:
            return time.monotonic() - began
