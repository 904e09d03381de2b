"""What the cases over streams share: clients, a call, and the relay that they are of."""

import socket
import ssl

import relay as relays
from cases import Failure
from ports import big_buffer
from turn import BINDING, PATIENCE, StreamClient, channel_data, message

CHANNEL = 0x4001
AT_ONCE = 4.0  # seconds: by no deadline, the shortest of which is five; and a busy machine takes its time
FRONT_END = "127.0.0.2"  # a front end that sends PROXY headers


def tls_context(lowest=None, highest=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if highest:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = lowest, highest
    return context


def client(relay, host, tls, **more):
    return StreamClient(host, relay.tls_port if tls else relay.port, tls=tls_context() if tls else None, **more)


def raw(relay, host, **more):
    return StreamClient(host, relay.port, **more)


def udp(host):
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind((host, 0))
    opened.settimeout(PATIENCE)
    big_buffer(opened)
    return opened


class Call:
    """A client with a channel to a peer of our own."""

    def __init__(self, relay, host, tls=False, **more):
        self.client = client(relay, host, tls, **more)
        self.relayed = self.client.allocate()[0]
        self.peer = udp(host)
        self.client.bind(CHANNEL, self.peer.getsockname()[:2])

    def check(self, payload=b"still there"):
        self.client.send(channel_data(payload, CHANNEL))
        if self.peer.recv(70000) != payload:
            raise Failure("the peer got something else")
        self.peer.sendto(payload, self.relayed)
        got = self.client.receive()
        if got is None or got != channel_data(payload, CHANNEL):
            raise Failure(f"the client got {got and got[:16].hex()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        self.peer.close()


def closed(opened, patience=AT_ONCE, silent=True):
    """Closed, and, if `silent`, without a byte."""
    seconds = opened.closed_after(patience)
    if silent and opened.got:
        raise Failure(f"answered with {opened.got[:24].hex()}")
    opened.close()
    return seconds


def binding(opened):
    request = message(BINDING)
    answer = opened.ask(request)
    if answer is None or answer[:2] != b"\x01\x01" or answer[8:20] != request[8:20]:
        raise Failure(f"Binding was answered with {answer and answer[:24].hex()}")
    return answer


class Streams(relays.Radiotower):
    def __init__(self, path, backend, workers=2, tls=True, settings=None):
        super().__init__(path, workers, {"workers.backend": f'"{backend}"', "log.level": '"notice"', "listen.proxy_protocol_from": f'["{FRONT_END}"]', **(settings or {})})
        self.backend, self.workers, self.tls_port = backend, workers, relays.free_port()
        if tls:
            self.settings.update(relays.TLS)
            self.settings["listen.tls"] = f'["127.0.0.1:{self.tls_port}", "[::1]:{self.tls_port}"]'
        self.congestion = ()
