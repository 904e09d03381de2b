"""Realms, access tokens, families and redirects over real sockets: coturn's turnutils_uclient with its test keys (-J) and an ORIGIN (-o), and
requests by hand for what it cannot do. Of our relay alone.
"""

import socket
import struct
import time

import relay as relays
import uclient
from cases import Failure
from turn import ALLOCATE, BIND, BINDING, PERMISSION, REFRESH, UDP, Client, address_in, error_of, message, parse, xor_address

ORIGIN, ALTERNATE_SERVER, THIRD_PARTY, FAMILY, XOR_RELAYED = 0x802F, 0x8023, 0x802E, 0x0017, 0x0016
CALL, CALL_ORIGIN, CALL_PASSWORD = "call.example.org", "https://call.example.org", "other-horse"
# The keys that turnutils_uclient has built in; they are one byte longer than their algorithms take.
KEYS = """north     MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK A256GCM
union     MTIzNDU2Nzg5MDEyMzQ1Ngo=                     A128GCM
oldempire MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIK A256GCM
"""


class Realms(relays.Radiotower):
    def __init__(self, path, settings):
        super().__init__(path, 2, settings)
        self.stun_port, self.game_port = relays.free_port(), relays.free_port()
        self.settings.update({
            "listen.udp": f'["127.0.0.1:{self.port}", "[::1]:{self.port}", "127.0.0.1:{self.stun_port}", "127.0.0.1:{self.game_port}"]',
            "listen.stun_only": f'["127.0.0.1:{self.stun_port}"]',
            "relay.rfc5766_channel_numbers": "true",
            "features.oauth_keys_file": '"oauth-keys"',
            f'realms."{CALL}".origins': f'["{CALL_ORIGIN}"]',
            f'realms."{CALL}".users_file': '"users-call"',
            'realms."games.example".listeners': f'["127.0.0.1:{self.game_port}"]',
            'realms."games.example".secrets_file': '"secrets"',
        })

    def command(self):
        command = super().command()
        relays.write_private(f"{self.folder}/oauth-keys", KEYS)
        relays.write_private(f"{self.folder}/users-call", f"{relays.USER}:{CALL_PASSWORD}\n")
        return command

    def wait_for(self, line, count):
        end = time.monotonic() + 30
        while self.log().count(line) < count:
            if time.monotonic() > end:
                raise Failure(f"no line {line!r} in the log")
            time.sleep(0.02)


def client(relay, host="127.0.0.1", origin=None, password=relays.PASSWORD):
    c = Client(relay.servers[host], relay.port, host, password=password)
    answer = c.ask(message(ALLOCATE, [UDP] + ([(ORIGIN, origin.encode())] if origin else [])))
    found = parse(answer)[1]
    c.realm, c.nonce = found[0x14], found[0x15]
    if found.get(THIRD_PARTY) != relays.REALM.encode():
        raise Failure(f"THIRD-PARTY-AUTHORIZATION is {found.get(THIRD_PARTY)}")
    return c


def expect(what, answer, code):
    got = None if answer is None else error_of(answer)
    if got != code:
        raise Failure(f"{what}: {got} instead of {code}")
    return answer


def two_realms(relay):
    """One name in two realms, and a live allocation through a reload that takes its realm away and brings it back."""
    origin = (ORIGIN, CALL_ORIGIN.encode())
    of_call = client(relay, origin=CALL_ORIGIN, password=CALL_PASSWORD)
    if of_call.realm != CALL.encode():
        raise Failure(f"realm {of_call.realm}")
    expect("Allocate in its realm", of_call.request(ALLOCATE, [UDP, origin]), 0)
    expect("without ORIGIN", of_call.request(REFRESH), 0)
    expect("with another", of_call.request(PERMISSION, [(ORIGIN, b"https://x.example"), (0x12, xor_address("127.0.0.1", 9))]), 0)
    of_default = client(relay)
    expect("Allocate in the default realm", of_default.request(ALLOCATE, [UDP]), 0)
    wrong = client(relay, origin=CALL_ORIGIN)
    expect("the default realm's password", wrong.request(ALLOCATE, [UDP, origin]), 401)

    keys = {k: v for k, v in relay.settings.items() if k.startswith("realms.")}
    for k in keys:
        del relay.settings[k]
    reloads = relay.log().count("reloaded")
    relay.reload()
    relay.wait_for("reloaded", reloads + 1)
    expect("after the realm has gone", of_call.request(REFRESH), 0)
    expect("nobody else", client(relay, password=CALL_PASSWORD).request(ALLOCATE, [UDP, origin]), 401)
    relay.settings.update(keys)
    relay.reload()
    relay.wait_for("reloaded", reloads + 2)
    expect("after it has come back", of_call.request(REFRESH, [(0x0D, bytes(4))]), 0)
    again = client(relay, origin=CALL_ORIGIN, password=CALL_PASSWORD)
    expect("a new one", again.request(ALLOCATE, [UDP, origin]), 0)
    for c in (of_call, of_default, wrong, again):
        c.close()
    return "10 answers, two reloads"


def by_listener(relay):
    """A listener for Binding alone, and one with a realm of its own."""
    stun = Client("127.0.0.1", relay.stun_port)
    expect("Binding", stun.ask(message(BINDING)), 0)
    if stun.ask(message(ALLOCATE, [UDP]), 0.2) is not None:
        raise Failure("a listener for Binding alone answers Allocate")
    user, password = relays.rest_credential("dora")
    game = Client("127.0.0.1", relay.game_port, user=user, password=password)
    expect("Allocate", game.request(ALLOCATE, [UDP]), 0)
    if game.realm != b"games.example":
        raise Failure(f"realm {game.realm}")
    relay.wait_for("realm=games.example", 1)
    for c in (stun, game):
        c.close()
    return "Binding alone; a realm of its own"


def across(relay, host):
    """A client of one address family and a peer of the other, both ways."""
    other = "::1" if host == "127.0.0.1" else "127.0.0.1"
    c = client(relay, host)
    answer = expect("Allocate", c.request(ALLOCATE, [UDP, (FAMILY, bytes([2 if ":" in other else 1, 0, 0, 0]))]), 0)
    relayed = address_in(parse(answer)[1][XOR_RELAYED], answer[8:20])
    if (":" in relayed[0]) != (":" in other):
        raise Failure(f"relayed address {relayed}")
    with socket.socket(socket.AF_INET6 if ":" in other else socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((other, 0))
        peer.settimeout(30)
        expect("ChannelBind", c.request(BIND, [(0x0C, b"\x40\0\0\0"), (0x12, xor_address(other, peer.getsockname()[1]))]), 0)
        c.send(struct.pack("!HH", 0x4000, 5) + b"there")
        data, source = peer.recvfrom(100)
        if data != b"there" or source[:2] != relayed:
            raise Failure(f"the peer got {data} from {source}")
        peer.sendto(b"back", source)
        if (c.receive() or b"")[:8] != struct.pack("!HH", 0x4000, 4) + b"back":
            raise Failure("nothing came back")
    c.close()
    return f"relayed by {relayed[0]}"


def drains(relay):
    held = client(relay)
    expect("Allocate", held.request(ALLOCATE, [UDP]), 0)
    reloads = relay.log().count("reloaded")
    relay.reload(redirect__servers=f'["127.0.0.1:{relay.port}", "127.0.0.9:3478"]', redirect__draining="true")
    relay.wait_for("reloaded", reloads + 1)
    late = client(relay)
    answer = expect("while it drains", late.request(ALLOCATE, [UDP]), 300)
    found = parse(answer)[1]
    if 8 not in found or found.get(ALTERNATE_SERVER) != bytes([0, 1]) + struct.pack("!H", 3478) + bytes([127, 0, 0, 9]):
        raise Failure(f"ALTERNATE-SERVER {found.get(ALTERNATE_SERVER)}, protected: {8 in found}")
    v6 = client(relay, "::1")
    expect("of the other family", v6.request(ALLOCATE, [UDP]), 508)
    expect("what is there stays", held.request(REFRESH), 0)
    for c in (held, late, v6):
        c.close()
    return "300, 508, and what is there stays"


def run(make_relay, report):
    plain = make_relay(False)
    if not isinstance(plain, relays.Radiotower):
        return
    relay = Realms(plain.path, {k: v for k, v in plain.settings.items() if k != "listen.udp"})

    def body(relay):
        for name, options in (("channel", []), ("indication", ["-s", "-c"]), ("ipv6", ["-x", "-c"])):
            report.case(f"tokens: uclient -J {name}", lambda o=options: uclient.told_apart(relay, lambda: uclient.run_client(relay, ["-J", "-y", *o])))
        report.case("realms: uclient -o", lambda: uclient.told_apart(relay, lambda: uclient.run_client(relay, ["-o", CALL_ORIGIN, "-u", relays.USER, "-w", CALL_PASSWORD, "-c", "-y"])))
        report.case("realms: two, and reloads", lambda: two_realms(relay))
        report.case("realms: by listener", lambda: by_listener(relay))
        for host in relay.servers:
            report.case(f"families: {host} to the other", lambda h=host: across(relay, h))
        report.case("redirect: a relay that drains", lambda: drains(relay))

    report.with_relay("realms", relay, body)
