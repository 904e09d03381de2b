"""T07, T08, T10, T11, T13, T15: cases that take as long as a deadline, all at the same time; and T15, T17 and reloads, which want a relay of their own."""

import os
import re
import shutil
import socket
import struct
import time

import relay as relays
from cases import Failure
from clients import CHANNEL, FRONT_END, Call, binding, closed, raw, tls_context
from turn import BINDING, COOKIE, StreamClient, message


def between(seconds, least, most):
    if not least <= seconds <= most:
        raise Failure(f"closed after {seconds:.1f} s, not {least} to {most}")
    return f"closed after {seconds:.1f} s"


def t07_stun_declared(relay, host):
    c = raw(relay, host)
    c.socket.sendall(struct.pack("!HHI", BINDING, 65532, COOKIE) + bytes(12))
    return between(closed(c, 12), 9, 10.6)


def t08_channel_data_declared(relay, host):
    with Call(relay, host) as call:
        call.client.socket.sendall(struct.pack("!HH", CHANNEL, 65535))
        return between(closed(call.client, 12), 9, 10.6)


def t10_silence(relay, host):
    c = raw(relay, host)
    plain = closed(c, 17)
    return between(plain, 14, 15.5)


def t10_silence_tls(relay, host):
    return between(closed(StreamClient(host, relay.tls_port), 17), 4.5, 15.5)


def silence_after_binding(relay, host):
    c = raw(relay, host)
    binding(c)
    return between(closed(c, 17), 14, 15.6)


def t11_drip(relay, host):
    c = raw(relay, host)
    request, began = message(BINDING, [(0x8022, bytes(100))]), time.monotonic()
    try:
        for byte in request:
            c.socket.sendall(bytes([byte]))
            if c.more(1.0):
                raise Failure("answered")
    except ConnectionError:
        return between(time.monotonic() - began, 9, 11.6)
    raise Failure("never closed")


def t15_half_handshake(relay, host):
    c = raw(relay, host)
    c.socket.sendall(b"\x16\x03\x01\x02\x00\x01")
    return between(closed(c, 7), 4, 5.6)


def half_proxy_header(relay, host):
    c = raw(relay, "127.0.0.1", source=FRONT_END)
    c.socket.sendall(b"PROXY TCP4 203.0.113.7")
    return between(closed(c, 7), 4, 5.6)


def allocation_keeps(relay, host):
    with Call(relay, host) as call:
        time.sleep(20)
        call.check()
    return "a silent client with an allocation stays"


def rss(relay):
    with open(f"/proc/{relay.process.pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


def t13_reads_nothing(relay, host, tls):
    """The peer floods; the client takes nothing."""
    with Call(relay, host, tls) as call, Call(relay, host, tls) as other:
        began, samples, checks = time.monotonic(), [], 0
        payload = bytes(1200)
        stop = began + 45
        while time.monotonic() < stop:
            for _ in range(20):
                call.peer.sendto(payload, call.relayed)
            time.sleep(0.01)
            if time.monotonic() > began + 3 * (len(samples) + 1):
                samples.append(rss(relay))
                other.check()
                checks += 1
                if relay.counters()["closed_stalled"]:
                    break
        took = time.monotonic() - began
        counters = relay.counters()
        if took > 42 or took < 25:
            raise Failure(f"ended after {took:.0f} s")
        if not counters["media_dropped"]:
            raise Failure("nothing was dropped")
        grown = max(samples[2:]) - samples[1]
        if grown > 16 << 10:
            raise Failure(f"memory went from {samples[1]} to {max(samples)} KiB")
        return f"closed after about {took:.0f} s, {counters['media_dropped']} messages dropped, memory grew by {grown} KiB, {checks} checks of another client"


def t15_crowd(relay, host):
    """Thousands of handshakes left half open: the oldest go, a call goes on, and five seconds later nothing is left."""
    with Call(relay, host, True) as call:
        call.check()
        opened = []
        for k in range(5000):
            s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            s.settimeout(5)
            s.connect((host, relay.tls_port))
            s.send(b"\x16\x03\x01\x02\x00\x01")
            opened.append(s)
            if k % 500 == 0:
                call.check()
        most = relay.counters()["in_handshake"]
        call.check()
        for _ in range(14):
            time.sleep(0.5)
            call.check()
        counters = relay.counters()
        for s in opened:
            s.close()
        if most > 2000 * relay.workers or counters["in_handshake"] > 0:
            raise Failure(f"{most} in the handshake, {counters['in_handshake']} after 7 s")
        return f"5,000 half open, {most} at once, {counters['closed_crowded_out']} crowded out, {counters['closed_slow_handshake']} too slow"


def t17_cap(relay, host):
    kept = [raw(relay, host) for _ in range(20)]
    for c in kept:
        binding(c)
    for _ in range(5):
        c = raw(relay, host)
        closed(c)
    for c in kept:
        binding(c)
    kept.pop().close()
    time.sleep(0.1)
    with raw(relay, host) as c:
        binding(c)
    for c in kept:
        c.close()
    return "20 served, 5 refused, the others untouched, a place that is free again taken"


def t04_without_certificate(relay, host):
    c = raw(relay, host)
    c.socket.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    closed(c)
    return "a TLS hello is refused without a reply"


def reload_certificate(relay, host):
    """New connections get the new certificate; running ones keep theirs; a bad pair changes nothing."""
    def shown():
        with StreamClient(host, relay.tls_port, tls=tls_context()) as c:
            return c.socket.getpeercert(True)
    first = shown()
    with Call(relay, host, True) as call:
        relays.make_certificate(relay.folder, "renewed.example.org")
        reload_and_wait(relay, "reloaded|configuration")
        second = shown()
        call.check()
        shutil.copy(os.path.join(relay.folder, "certificate.pem"), os.path.join(relay.folder, "key.pem"))
        reload_and_wait(relay, "reload refused")
        third = shown()
        call.check()
    if first == second or second != third:
        raise Failure("another certificate than it should be")
    relays.make_certificate(relay.folder)
    return "renewed; a bad pair refused"


def reload_and_wait(relay, what):
    before = len(relay.log())
    relay.reload()
    end = time.monotonic() + 3
    while not re.search(what, relay.log()[before:]) and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.3)


def denied_by_reload(relay, host):
    with Call(relay, host) as call:
        relay.reload(listen__deny_clients=f'["{host}"]')
        call.client.closed_after(2)
        c = raw(relay, host)
        closed(c)
    relay.reload(listen__deny_clients="[]")
    time.sleep(0.5)
    return "closed, and nobody from there let in"


DEADLINES = (t07_stun_declared, t08_channel_data_declared, t10_silence, t10_silence_tls, silence_after_binding, t11_drip, t15_half_handshake, half_proxy_header,
             allocation_keeps)
ALONE = (reload_certificate, t15_crowd, denied_by_reload)
WITHOUT_CERTIFICATE = (t17_cap, t04_without_certificate)
