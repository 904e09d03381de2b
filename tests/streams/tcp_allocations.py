"""What the tests of TCP allocations are made of: clients over TCP and TLS, peers, a relay that has the feature, and bytes to and fro."""

import hashlib
import os
import select
import socket
import ssl
import struct
import subprocess
import time

import relay as relays
from cases import Failure
from turn import ALLOCATE, PATIENCE, XOR_PEER, XOR_RELAYED, Client, address_in, attributes_of, error_of, parse, xor_address

CONNECT, CONNECTION_BIND, CONNECTION_ATTEMPT, CONNECTION_ID = 0x000A, 0x000B, 0x001C, 0x002A
TCP = (0x0019, bytes([6, 0, 0, 0]))
WORKERS = 4
MUCH_SECONDS = 240  # for what sends many bytes, on a machine that has much else to do
BOB, BOBS_PASSWORD = "bob", "hunter2"
SLOW, SLOWS_PASSWORD = "slow", "snail"  # a megabyte a second


class Stream(Client):
    """A client over TCP or TLS. `socket` is free for the peer's bytes once it is joined, `rest` what has come behind the last message."""

    def __init__(self, server, port, tls=False, **who):
        plain = socket.create_connection((server, port), timeout=PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            plain = context.wrap_socket(plain, suppress_ragged_eofs=False)
        self.rest = b""
        super().__init__(server, port, opened=Connected(plain), **who)
        self.socket = plain

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, timeout=PATIENCE):
        """One whole STUN message; None when there is none in time, or no connection any more."""
        end = time.monotonic() + timeout
        while True:
            if len(self.rest) >= 4:
                size = 20 + struct.unpack("!H", self.rest[2:4])[0]
                if len(self.rest) >= size:
                    whole, self.rest = self.rest[:size], self.rest[size:]
                    return whole
            left = end - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                piece = self.socket.recv(65536)
            except (socket.timeout, OSError):
                return None
            if not piece:
                return None
            self.rest += piece

    def read(self, size, timeout=PATIENCE):
        """That many bytes of a joined connection."""
        self.socket.settimeout(timeout)
        while len(self.rest) < size:
            piece = self.socket.recv(min(65536, size - len(self.rest)))
            if not piece:
                raise Failure(f"the end after {len(self.rest)} of {size} bytes")
            self.rest += piece
        got, self.rest = self.rest[:size], self.rest[size:]
        return got


class Connected:
    """Stands in while Client's constructor connects."""

    def __init__(self, opened):
        self.opened = opened

    def connect(self, _):
        pass


class Peer:
    """A listening peer."""

    def __init__(self, host="127.0.0.1", backlog=16):
        self.listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=backlog)
        self.listener.settimeout(PATIENCE)
        self.address = self.listener.getsockname()[:2]

    def accept(self):
        opened, _ = self.listener.accept()
        opened.settimeout(MUCH_SECONDS)
        return opened

    def close(self):
        self.listener.close()


class Case:
    """A relay, and how its clients come."""

    def __init__(self, relay, tls, host="127.0.0.1"):
        self.relay, self.tls, self.host = relay, tls, host

    def client(self, **who):
        return Stream(self.host, self.relay.tls_port if self.tls else self.relay.port, self.tls, **who)

    def allocated(self, **who):
        control = self.client(**who)
        answer = control.must(ALLOCATE, [TCP])
        control.relayed = next(address_in(v, answer[8:20]) for k, v in attributes_of(answer)[1] if k == XOR_RELAYED)
        return control

    def connect(self, control, address, timeout=PATIENCE):
        """The answer to a Connect."""
        if control.nonce is None:
            control.learn_nonce()
        return control.ask(control.signed(CONNECT, [(XOR_PEER, xor_address(*address))]), timeout)

    def connected(self, control, peer):
        """CONNECTION-ID, and the peer's end."""
        end = time.monotonic() + PATIENCE
        while code(answer := self.connect(control, peer.address)) == 446 and time.monotonic() < end:
            time.sleep(0.01)  # the relay has not seen the end of the one before yet
        if answer is None or error_of(answer) != 0:
            raise Failure(f"Connect: {error_of(answer) if answer else 'no answer'}")
        return parse(answer)[1][CONNECTION_ID], peer.accept()

    def bind(self, connection, behind=b"", **who):
        """A client data connection. `behind` goes in the same segment as the ConnectionBind."""
        data = self.client(**who)
        data.learn_nonce()
        answer = data.ask(data.signed(CONNECTION_BIND, [(CONNECTION_ID, connection)]) + behind)
        if answer is None or error_of(answer) != 0:
            raise Failure(f"ConnectionBind: {error_of(answer) if answer else 'no answer'}")
        return data

    def joined(self):
        """Everything between a client and a peer, and a way to end it."""
        peer, control = Peer(), self.allocated()
        connection, far = self.connected(control, peer)
        data = self.bind(connection)
        return Joined(peer, control, far, data)


class Joined:
    def __init__(self, peer, control, far, data):
        self.peer, self.control, self.far, self.data = peer, control, far, data

    def close(self):
        for end in (self.data, self.far, self.control, self.peer):
            end.close()


def expect(row, got, wanted):
    if got != wanted:
        raise Failure(f"{row}: {got} instead of {wanted}")


def code(answer):
    return None if answer is None else error_of(answer)


def is_closed(opened, timeout=20.0):
    """FIN or RST within that time, and nothing before."""
    opened.settimeout(timeout)
    try:
        return opened.recv(1) == b""
    except (ConnectionError, ssl.SSLError):
        return True
    except socket.timeout:
        return False


def receive(opened, size):
    got = b""
    while len(got) < size:
        piece = opened.recv(size - len(got))
        if not piece:
            raise Failure(f"the end after {len(got)} of {size} bytes")
        got += piece
    return got


def pump(source, blocks):
    for block in blocks:
        source.sendall(block)


def drain(opened, rest=b""):
    """Digest and number of all bytes until the end."""
    digest, size = hashlib.sha256(rest), len(rest)
    while True:
        try:
            piece = opened.recv(1 << 18)
        except ssl.SSLZeroReturnError:
            piece = b""
        if not piece:
            return digest.hexdigest(), size
        digest.update(piece)
        size += len(piece)


def duplex(opened, blocks, size):
    """Sends the blocks and receives `size` bytes at once, without ever waiting in one direction."""
    digest, n, at, rest = hashlib.sha256(), 0, 0, memoryview(b"")
    opened.setblocking(False)
    end = time.monotonic() + MUCH_SECONDS
    while (n < size or rest or at < len(blocks)) and time.monotonic() < end:
        moved = False
        if not rest and at < len(blocks):
            rest, at = memoryview(blocks[at]), at + 1
        if rest:
            try:
                rest = rest[opened.send(rest):]
                moved = True
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
        if n < size:
            try:
                piece = opened.recv(1 << 18)
                if not piece:
                    break
                digest.update(piece)
                n += len(piece)
                moved = True
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
        if not moved:
            select.select([opened], [opened] if rest else [], [], 1)
    opened.setblocking(True)
    opened.settimeout(MUCH_SECONDS)
    return digest.hexdigest(), n


def certificate(folder):
    """Self-signed, for the tests alone."""
    files = os.path.join(folder, "certificate.pem"), os.path.join(folder, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-out", files[0], "-keyout", files[1]], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return files


class WithStreams(relays.Radiotower):
    users = (f"{BOB}:{BOBS_PASSWORD}", f"{SLOW}:{SLOWS_PASSWORD}   bytes_per_second=1000000")
    congestion = ()

    def __init__(self, path, settings):
        super().__init__(path, WORKERS, settings)
        self.tls_port = relays.free_port()
        # MiB. A ring's receive buffers, 33 MiB a worker, are the relay's own, and become resident as they are used.
        self.may_grow = 16 + (34 * WORKERS if "io_uring" in settings["workers.backend"] else 0)
        self.settings.update({"listen.tcp": f'["127.0.0.1:{self.port}"]', "listen.tls": f'["127.0.0.1:{self.tls_port}"]', "features.tcp_relay": "true",
                              "limits.new_peers_per_second": "0"})

    def command(self):
        files = certificate(self.folder)
        self.settings.update({"listen.certificate": f'"{files[0]}"', "listen.private_key": f'"{files[1]}"'})
        return super().command()
