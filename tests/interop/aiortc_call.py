"""Two peer connections of aiortc that may use relayed candidates only: one sends video and messages, the other counts the one and echoes the
others. Prints what it measured as JSON; the judgement is calls.py's.

aiortc has no policy for candidates, so this sets aioice's under it, and gives it no address for a candidate of another kind.
"""

import argparse
import asyncio
import fractions
import json
import os
import socket
import sys
import time
import traceback

import aioice.ice
import aiortc.rtcicetransport
import av
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, VideoStreamTrack
from aiortc.mediastreams import MediaStreamError

FRAMES_A_SECOND, WIDTH, HEIGHT = 20, 320, 240
MESSAGE_BYTES, WINDOW = 200, 20  # messages on their way at a time


def relay_only():
    settings_of = aiortc.rtcicetransport.connection_kwargs
    aiortc.rtcicetransport.connection_kwargs = lambda servers: {**settings_of(servers), "transport_policy": aioice.ice.TransportPolicy.RELAY}
    aioice.ice.get_host_addresses = lambda **_: []


class Pictures(VideoStreamTrack):
    """Noise in a corner, so that every frame is a few packets."""

    def __init__(self):
        super().__init__()
        self.began, self.sent, self.ending = None, 0, False

    async def recv(self):
        if self.began is None:
            self.began = time.monotonic()
        await asyncio.sleep(max(0, self.began + self.sent / FRAMES_A_SECOND - time.monotonic()))
        while self.ending:
            await asyncio.sleep(1)
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for plane in frame.planes:
            picture = bytearray(b"\x80") * plane.buffer_size
            picture[: plane.buffer_size // 16] = os.urandom(plane.buffer_size // 16)
            plane.update(picture)
        frame.pts, frame.time_base = self.sent, fractions.Fraction(1, FRAMES_A_SECOND)
        self.sent += 1
        return frame


def text(number):
    return f"{number:<{MESSAGE_BYTES}}"


def pair_of(ice):
    pair = ice._connection._nominated[1]
    return f"{pair.local_candidate.type}/{pair.remote_candidate.type}"


def transport_of(ice):
    """What it has to the relay, by the socket itself."""
    turn = ice._connection._nominated[1].protocol.transport._TurnTransport__inner_protocol.transport
    if turn.get_extra_info("ssl_object"):
        return "tls"
    return "udp" if turn.get_extra_info("socket").type == socket.SOCK_DGRAM else "tcp"


async def call(wanted, result):
    server = RTCIceServer(urls=wanted.url, username=wanted.username, credential=wanted.credential)
    caller, callee = ends = [RTCPeerConnection(RTCConfiguration(iceServers=[server])) for _ in range(2)]
    pictures, received, all_echoed = Pictures(), [], asyncio.Event()
    channel = caller.createDataChannel("echo")
    sent = 0

    def send():
        nonlocal sent
        if sent < wanted.messages:
            channel.send(text(sent))
            sent += 1

    @channel.on("open")
    def opened():
        for _ in range(WINDOW):
            send()

    @channel.on("message")
    def echoed(message):
        result["altered"] += message != text(result["echoed"])
        result["echoed"] += 1
        send()
        if result["echoed"] == wanted.messages:
            all_echoed.set()

    @callee.on("datachannel")
    def offered(other):
        other.on("message", other.send)

    async def watch(track):
        try:
            while True:
                await track.recv()
                result["frames_received"] += 1
        except MediaStreamError:
            pass

    callee.on("track", lambda track: received.append(asyncio.ensure_future(watch(track))))
    caller.addTrack(pictures)
    try:
        await caller.setLocalDescription(await caller.createOffer())
        await callee.setRemoteDescription(caller.localDescription)
        await callee.setLocalDescription(await callee.createAnswer())
        await caller.setRemoteDescription(callee.localDescription)
        await asyncio.wait_for(all_echoed.wait(), wanted.timeout)
        transports = [end.sctp.transport.transport for end in ends]
        result["pairs"] = [pair_of(ice) for ice in transports]
        result["transports"] = [transport_of(ice) for ice in transports]
        await asyncio.sleep(max(0, pictures.began + wanted.video - time.monotonic()))
        pictures.ending = True
        await asyncio.sleep(1)  # the last packets are on their way, and decoded
        result["frames_sent"] = pictures.sent
        for stats in (await callee.getStats()).values():
            if stats.type == "inbound-rtp":
                result["packets_received"], result["packets_lost"] = stats.packetsReceived, stats.packetsLost
    finally:
        for end in ends:
            await end.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("url", str), ("username", str), ("credential", str), ("messages", int), ("video", float), ("timeout", float)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    wanted = parser.parse_args()
    result = {"pairs": [], "transports": [], "echoed": 0, "altered": 0,
              "frames_sent": 0, "frames_received": 0, "packets_received": 0, "packets_lost": 0}
    relay_only()
    try:
        asyncio.run(call(wanted, result))
    except Exception as e:
        traceback.print_exc()
        result["error"] = f"{type(e).__name__}: {e}"
    print(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # aiortc's threads may outlive it


if __name__ == "__main__":
    main()
