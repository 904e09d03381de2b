"""T01-T06, T09, T12, T14-T16, L32, and what a call over a stream is to be: cases that wait for nothing."""

import os
import socket
import ssl
import struct
import threading
import time
import warnings

from cases import Failure
from clients import AT_ONCE, CHANNEL, FRONT_END, Call, binding, client, closed, raw, tls_context, udp
from turn import BINDING, COOKIE, LIFETIME, PATIENCE, REFRESH, StreamClient, channel_data, message, parse


def a_call(relay, host, tls):
    sizes = (0, 1, 2, 3, 4, 5, 160, 1200, 16380, 16385, 40000) + ((65507,) if ":" not in host else (65487,))
    with Call(relay, host, tls) as call:
        for size in sizes:
            call.check(os.urandom(size))
        call.client.must(REFRESH, [(LIFETIME, bytes(4))])
        return f"{len(sizes)} sizes up to {max(sizes)} bytes both ways"


def t01_byte_by_byte(relay, host, tls):
    with client(relay, host, tls) as c:
        send = c.send

        def trickle(data):
            for byte in data:
                send(bytes([byte]))
        c.send = trickle
        binding(c)
        c.allocate()
        with udp(host) as peer:
            c.bind(CHANNEL, peer.getsockname()[:2])
            c.send(channel_data(b"byte by byte", CHANNEL))
            if peer.recv(100) != b"byte by byte":
                raise Failure("the peer got something else")
    return "a session of five requests and a ChannelData message"


def t02_a_thousand(relay, host, tls):
    with client(relay, host, tls) as c, client(relay, host, tls) as other:
        ids = [os.urandom(12) for _ in range(1000)]
        c.socket.sendall(b"".join(message(BINDING, transaction=t) for t in ids))
        began = time.monotonic()
        binding(other)
        waited = time.monotonic() - began
        for transaction in ids:
            answer = c.receive()
            if answer is None or answer[8:20] != transaction:
                raise Failure("answers are missing, or in another order")
    with Call(relay, host, tls) as call:
        call.client.socket.sendall(channel_data(b"message 4567", CHANNEL) * 1000)
        for _ in range(1000):
            if call.peer.recv(100) != b"message 4567":
                raise Failure("the peer got something else")
    return f"1,000 requests and 1,000 ChannelData in a row; another client waited {waited * 1000:.0f} ms"


def t03_split_anywhere(relay, host, tls):
    request = message(BINDING, [(0x8022, b"a name of software")])
    with Call(relay, host, tls) as call:
        data = channel_data(b"seven..", CHANNEL) + b"\0"
        for whole in (request, data, request + data + request):
            for offset in range(1, len(whole)):
                call.client.socket.sendall(whole[:offset])
                time.sleep(0.0005)
                call.client.socket.sendall(whole[offset:])
                for _ in range(whole.count(request)):
                    answer = call.client.receive()
                    if answer is None or answer[:2] != b"\x01\x01":
                        raise Failure(f"offset {offset}: {answer}")
                if data in whole and call.peer.recv(100) != b"seven..":
                    raise Failure(f"offset {offset}: the peer got something else")
    return "Binding, ChannelData with padding, and all three together"


def t04_other_protocols(relay, host):
    rows = (b"GET / HTTP/1.1\r\n\r\n", b"GET ", b"SSH-2.0-x\r\n", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x80\x2e\x01\x03\x01",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12), b"\0", b"\xff" * 100)
    for first in rows:
        for port in (relay.port, relay.tls_port):
            if first == b"\0" and port == relay.port:
                continue
            c = StreamClient(host, port)
            c.socket.sendall(first)
            closed(c)
    with client(relay, host, True) as c:  # and within TLS
        c.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
        closed(c)
    return f"{len(rows)} beginnings, no reply"


def t05_good_then_bad(relay, host, tls):
    c = client(relay, host, tls)
    good = message(BINDING)
    c.socket.sendall(good + good[:4] + struct.pack("!I", COOKIE ^ 1) + good[8:])
    closed(c, silent=False)
    if c.got[:2] != b"\x01\x01":
        raise Failure("the good one was not answered")
    return "answered, then closed"


def t06_odd_lengths(relay, host, tls):
    for length in (1, 2, 3, 5, 65535):
        c = client(relay, host, tls)
        c.socket.sendall(struct.pack("!HHI", BINDING, length, COOKIE) + bytes(12))
        closed(c)
    return "closed"


def t09_without_padding(relay, host, tls):
    with Call(relay, host, tls) as call:
        call.client.socket.sendall(channel_data(b"12345", CHANNEL) + message(BINDING))
        closed(call.client, silent=False)
    return "closed"


def counters_when(relay, condition):
    """Once they are so; or as they are, when that takes too long."""
    end = time.monotonic() + PATIENCE
    while not condition(counters := relay.counters()) and time.monotonic() < end:
        pass
    return counters


def t12_l32_gone(relay, host, tls):
    """FIN, and RST in the midst of a message: what the client had is free at once."""
    for how in ("fin", "rst"):
        before = counters_when(relay, lambda c: c["used"] == c["allocations"] == 0)  # those of the cases before have gone
        call = Call(relay, host, tls)
        during = relay.counters()
        if during["used"] != before["used"] + 1:
            raise Failure(f"{during['used']} ports with the allocation, {before['used']} before")
        if how == "rst":
            call.client.socket.sendall(message(BINDING)[:13])
            call.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        call.__exit__()
        names = ("used", "accounts", "allocations")
        after = counters_when(relay, lambda c: all(c[name] == before[name] for name in names))
        if after["used"] != before["used"] or after["accounts"] != before["accounts"] or after["allocations"] != before["allocations"]:
            raise Failure(f"{how}: {before} became {after}")
    return "FIN and RST: port, quota and account given back"


def half_close(relay, host):
    with raw(relay, host) as c:
        c.socket.sendall(message(BINDING) * 3)
        c.socket.shutdown(socket.SHUT_WR)
        c.closed_after(AT_ONCE)
        if c.got.count(b"\x01\x01") < 3:
            raise Failure(f"{len(c.got)} bytes of answers")
    return "what was asked was answered, then closed"


def t14_old_tls(relay, host):
    warnings.simplefilter("ignore", DeprecationWarning)
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        try:
            StreamClient(host, relay.tls_port, tls=tls_context(version, version))
        except (ssl.SSLError, ConnectionError):
            continue
        raise Failure(f"{version.name} was taken")
    spoken = []
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with StreamClient(host, relay.tls_port, tls=tls_context(version, version)) as c:
            binding(c)
            spoken.append(c.socket.version())
    return f"refused; {' and '.join(spoken)} taken, on listen.tls"


def tls_on_tcp(relay, host):
    with StreamClient(host, relay.port, tls=tls_context()) as c:
        binding(c)
        c.allocate()
    return "told by the first byte"


def t15_one_byte_records(relay, host):
    """A handshake in records of one byte each either comes to its end or is closed in time."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = tls_context().wrap_bio(incoming, outgoing)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = outgoing.read()
    c = StreamClient(host, relay.tls_port)
    began, body = time.monotonic(), hello[5:]
    try:
        for byte in body:
            c.socket.sendall(hello[:3] + b"\0\1" + bytes([byte]))
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                if not c.more(PATIENCE):
                    raise Failure("neither an answer nor an end") from None
                incoming.write(c.got)
                c.got = b""
                c.socket.sendall(outgoing.read())
        outcome = "it came to its end"
    except (ConnectionError, ssl.SSLError):
        outcome = "refused"
    c.close()
    return f"{len(body)} records, {outcome} after {time.monotonic() - began:.1f} s"


def key_frames(relay, host, tls, link=None):
    """Bursts of 200 KiB to a client that reads, and to one at the end of a link of 20 Mb/s: nothing of them may be lost."""
    with Call(relay, host, tls) as call:
        packets, frames = 171, 10
        if link:
            call.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
            call.client.at_once = 16384
            more, free_at = call.client.more, [0.0]  # when the link has carried what has been read

            def slowly(timeout):
                before = len(call.client.got)
                came = more(timeout)
                now = time.monotonic()
                free_at[0] = max(now - 0.02, free_at[0]) + (len(call.client.got) - before) * 8 / link
                time.sleep(max(0.0, free_at[0] - now))
                return came
            call.client.more = slowly
        got = []

        def read():
            while len(got) < packets * frames:
                data = call.client.receive()
                if data is None:
                    return
                got.append(struct.unpack_from("!I", data, 4)[0])
        reader = threading.Thread(target=read)
        reader.start()
        for frame in range(frames):
            for k in range(packets):
                call.peer.sendto(struct.pack("!I", frame * packets + k) + bytes(1196), call.relayed)
            time.sleep(0.3)
            while len(got) < (frame + 1) * packets and reader.is_alive():
                time.sleep(0.01)  # a reader that this machine holds up is no link that is too slow
        reader.join()
        if got != list(range(packets * frames)):
            raise Failure(f"{len(got)} of {packets * frames} packets arrived, or in another order")
    return f"{frames} times {packets * 1200 // 1024} KiB, none lost"


def key_frames_on_a_slow_link(relay, host, tls):
    return key_frames(relay, host, tls, 20_000_000) + f", {relay.counters()['queued']} messages had to wait"


def proxy_v2(client_address, client_port, server, port, local=False):
    family = socket.AF_INET6 if ":" in client_address else socket.AF_INET
    body = socket.inet_pton(family, client_address) + socket.inet_pton(family, server) + struct.pack("!HH", client_port, port)
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x20 if local else 0x21, 0x21 if family == socket.AF_INET6 else 0x11, len(body)) + body


def mapped(opened):
    answer = binding(opened)
    value = parse(answer)[1][0x20]
    port = struct.unpack_from("!H", value, 2)[0] ^ (COOKIE >> 16)
    mask = struct.pack("!I", COOKIE) + answer[8:20]
    plain = bytes(a ^ b for a, b in zip(value[4:], mask))
    return socket.inet_ntop(socket.AF_INET if len(plain) == 4 else socket.AF_INET6, plain), port


def t16_proxy_headers(relay):
    told = [(("203.0.113.7", 40001), b"PROXY TCP4 203.0.113.7 192.0.2.1 40001 443\r\n"), (("2001:db8::7", 40002), b"PROXY TCP6 2001:db8::7 2001:db8::1 40002 443\r\n"),
            (("203.0.113.8", 40003), proxy_v2("203.0.113.8", 40003, "192.0.2.1", 443)), (("2001:db8::8", 40004), proxy_v2("2001:db8::8", 40004, "2001:db8::1", 443))]
    for address, header in told:
        for tls in (False, True):
            with client(relay, "127.0.0.1", tls, source=FRONT_END, before=header) as c:
                if mapped(c) != address:
                    raise Failure(f"{header!r}: the client is told {mapped(c)}")
        with raw(relay, "127.0.0.1", source=FRONT_END) as c:  # in pieces
            for byte in header + message(BINDING):
                c.socket.sendall(bytes([byte]))
            if c.receive() is None:
                raise Failure("no answer to what came behind a header in pieces")
    with raw(relay, "127.0.0.1", source=FRONT_END, before=proxy_v2("203.0.113.9", 1, "192.0.2.1", 443, local=True)) as c:
        if mapped(c)[0] != FRONT_END:
            raise Failure("LOCAL: another address")
    # The header is required of a front end, and refused from anybody else; two connections cannot be one client.
    c = raw(relay, "127.0.0.1", source=FRONT_END)
    c.socket.sendall(message(BINDING))
    closed(c)
    for _, header in told:
        c = raw(relay, "127.0.0.1")
        c.socket.sendall(header + message(BINDING))
        closed(c)
    if relay.workers == 1:
        with raw(relay, "127.0.0.1", source=FRONT_END, before=told[0][1]) as first:
            binding(first)
            second = raw(relay, "127.0.0.1", source=FRONT_END, before=told[0][1])
            second.socket.sendall(message(BINDING))
            closed(second)
            binding(first)
    return f"{len(told)} headers, plain, in front of TLS, in pieces"


CASES = (a_call, t01_byte_by_byte, t02_a_thousand, t03_split_anywhere, t04_other_protocols, t05_good_then_bad, t06_odd_lengths, t09_without_padding, t12_l32_gone,
         half_close, t14_old_tls, tls_on_tcp, t15_one_byte_records, key_frames, key_frames_on_a_slow_link)
