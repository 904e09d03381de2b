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
from turn import BINDING, COOKIE, PATIENCE, StreamClient, message


# A deadline begins with what the relay does, so the clock of the test begins before it; and on a busy machine it is seen late, though before the
# next longer one.
TEN, FIFTEEN, FIVE = (9.5, 14.5), (14.5, 40), (4.5, 9.5)


def closed_between(opened, began, bounds):
    least, most = bounds
    closed(opened, most + 1)
    return between(time.monotonic() - began, bounds)


def between(seconds, bounds):
    least, most = bounds
    if not least <= seconds <= most:
        raise Failure(f"closed after {seconds:.1f} s, not {least} to {most}")
    return f"closed after {seconds:.1f} s"


def t07_stun_declared(relay, host):
    began = time.monotonic()
    c = raw(relay, host)
    c.socket.sendall(struct.pack("!HHI", BINDING, 65532, COOKIE) + bytes(12))
    return closed_between(c, began, TEN)


def t08_channel_data_declared(relay, host):
    with Call(relay, host) as call:
        began = time.monotonic()
        call.client.socket.sendall(struct.pack("!HH", CHANNEL, 65535))
        return closed_between(call.client, began, TEN)


def t10_silence(relay, host):
    began = time.monotonic()
    return closed_between(raw(relay, host), began, FIFTEEN)


def t10_silence_tls(relay, host):
    began = time.monotonic()
    return closed_between(StreamClient(host, relay.tls_port), began, (FIVE[0], FIFTEEN[1]))


def silence_after_binding(relay, host):
    began = time.monotonic()
    c = raw(relay, host)
    binding(c)
    return closed_between(c, began, FIFTEEN)


def t11_drip(relay, host):
    began = time.monotonic()
    c, request = raw(relay, host), message(BINDING, [(0x8022, bytes(100))])
    try:
        for byte in request:
            c.socket.sendall(bytes([byte]))
            if c.more(1.0):
                raise Failure("answered")
    except ConnectionError:
        return between(time.monotonic() - began, TEN)
    raise Failure("never closed")


def t15_half_handshake(relay, host):
    began = time.monotonic()
    c = raw(relay, host)
    c.socket.sendall(b"\x16\x03\x01\x02\x00\x01")
    return closed_between(c, began, FIVE)


def half_proxy_header(relay, host):
    began = time.monotonic()
    c = raw(relay, "127.0.0.1", source=FRONT_END)
    c.socket.sendall(b"PROXY TCP4 203.0.113.7")
    return closed_between(c, began, FIVE)


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
        stop = began + 120
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
        if took > 110 or took < 25:
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
            s.settimeout(PATIENCE)
            s.connect((host, relay.tls_port))
            s.send(b"\x16\x03\x01\x02\x00\x01")
            opened.append(s)
            if k % 500 == 0:
                call.check()
        most = relay.counters()["in_handshake"]
        call.check()
        began = time.monotonic()
        while True:
            time.sleep(0.5)
            call.check()
            counters = relay.counters()
            if counters["in_handshake"] == 0 or time.monotonic() > began + PATIENCE:
                break
        seconds = time.monotonic() - began
        for s in opened:
            s.close()
        if most > 2000 * relay.workers or counters["in_handshake"] > 0:
            raise Failure(f"{most} in the handshake, {counters['in_handshake']} after {seconds:.0f} s")
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
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with raw(relay, host) as c:
                binding(c)
            break
        except ConnectionError:  # the relay has not seen the end of the other yet
            if time.monotonic() > end:
                raise
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
        end = time.monotonic() + PATIENCE
        while (second := shown()) == first and time.monotonic() < end:
            pass  # a worker hears of it a moment after the log
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
    end = time.monotonic() + PATIENCE
    while not re.search(what, relay.log()[before:]):
        if time.monotonic() > end:
            raise Failure(f"the log has no {what}: {relay.log()[before:]}")
        time.sleep(0.05)
    time.sleep(0.3)


def denied_by_reload(relay, host):
    with Call(relay, host) as call:
        relay.reload(listen__deny_clients=f'["{host}"]')
        call.client.closed_after(PATIENCE)
        c = raw(relay, host)
        closed(c)
    relay.settings["listen.deny_clients"] = "[]"
    reload_and_wait(relay, "notice reloaded")
    return "closed, and nobody from there let in"


DEADLINES = (t07_stun_declared, t08_channel_data_declared, t10_silence, t10_silence_tls, silence_after_binding, t11_drip, t15_half_handshake, half_proxy_header,
             allocation_keeps)
ALONE = (reload_certificate, t15_crowd, denied_by_reload)
WITHOUT_CERTIFICATE = (t17_cap, t04_without_certificate)
