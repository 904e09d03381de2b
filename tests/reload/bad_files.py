"""Files that no relay takes, and the sentence that each has to be refused with."""

import os
import re
import socket

import relay as relays

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(HERE, "..", "daemon", "bad-config")
# What these say depends on the addresses of the host; the unit tests give them one.
OF_ANOTHER_HOST = ("external-ambiguous", "external-of-nobody", "external-twice", "nat-discovery-one-address", "redirect-itself",
                   "realms-listener-twice")

# What they name, as the unit tests have it.
BESIDE = {
    "empty": ("# nothing yet\n\n", 0o600),
    "world-readable": ("north-of-the-wall\n", 0o644),
    "short": ("north-of-the-wall\nsecret\n", 0o600),
    "twice": ("north-of-the-wall\nanother-one\nnorth-of-the-wall\n", 0o600),
    "byte-order-mark": ("\ufeffnorth-of-the-wall\n", 0o600),
    "binary": ("north\x01of-the-wall\n", 0o600),
    "bad-users": ("alice:in-wonderland\n# three mistakes a user makes\nbob\nbob:0x1234\ncarol:cheese allocations=many\nalice:again\n:nameless\ndave:correct horse\n", 0o600),
    "bad-oauth-keys": ("north\nnorth not-base64\nnorth MTIzNDU2Nzg5MDEyMzQ1Ngo=\nsouth MTIzNDU2Nzg5MDEyMzQ1Ngo= A128GCM\nsouth MTIzNDU2Nzg5MDEyMzQ1Ngo= A128GCM\n"
                       "east MTIzNDU2Nzg5MDEyMzQ1Ngo= A128CBC\neast MTIzNDU2Nzg5MDEyMzQ1Ngo= A128GCM lifetime=60\neast MTIzNDU2Nzg5MDEyMzQ1Ngo= A128GCM lifetime=-1\n", 0o600),
}


def prepare(folder):
    for name, (text, mode) in BESIDE.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(os.path.join(folder, name), mode)
    os.mkdir(os.path.join(folder, "folder"))
    os.mkfifo(os.path.join(folder, "pipe"), 0o600)
    with open(os.path.join(folder, "half.pem"), "w") as f, open(os.path.join(folder, "certificate.pem")) as whole:
        f.write(whole.read()[:300])
    relays.write_private(os.path.join(folder, "other-key.pem"), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


def from_the_unit_tests():
    """(name, text, sentences)"""
    for name in sorted(os.listdir(FOLDER)):
        with open(os.path.join(FOLDER, name)) as f:
            text = f.read()
        if name[: -len(".toml")] in OF_ANOTHER_HOST:
            continue
        sentences = [line.replace(name, "relay.toml") for line in re.findall(r"^# expect: (.*)$", text, re.M)]
        yield name[: -len(".toml")], text, sentences


class Holder:
    """Another program that listens where the relay is to."""

    def __init__(self, kind):
        self.socket = socket.socket(socket.AF_INET, kind)
        self.socket.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            self.socket.listen()
        self.port = self.socket.getsockname()[1]

    def close(self):
        self.socket.close()


def of_a_running_relay(relay, udp, tcp):
    """Changes to the relay's own settings: (name, settings, sentences). `udp`, `tcp`: ports that another program holds."""
    here = f'"127.0.0.1:{relay.port}"'
    at = "127.0.0.1:{}".format
    yield "udp-in-use", {"listen.udp": f'[{here}, "{at(udp)}"]'}, [f"cannot listen on {at(udp)}: another program has it; `ss -ulpn"]
    yield "tcp-in-use", {"listen.tcp": f'[{here}, "{at(tcp)}"]'}, [f"cannot listen on {at(tcp)}: another program has it; `ss -tlpn"]
    yield "tls-in-use", {"listen.tls": f'["{at(tcp)}"]'}, [f"cannot listen on {at(tcp)}: another program has it; `ss -tlpn"]
    yield "dtls-in-use", {"listen.dtls": f'["{at(udp)}"]'}, [f"cannot listen on {at(udp)}: another program has it; `ss -ulpn"]
    free = relays.free_port()
    yield ("one-of-many-in-use", {"listen.udp": f'[{here}, "{at(free)}", "{at(udp)}"]', "listen.tcp": f'["{at(free)}"]', "limits.allocations": "7"},
           [f"cannot listen on {at(udp)}: another program has it"])
    yield "certificate-cut-off", {"listen.certificate": '"half.pem"'}, ["listen.certificate: ", "half.pem"]
    yield "certificate-gone", {"listen.certificate": '"nowhere.pem"'}, ["nowhere.pem"]
    yield "key-of-noise", {"listen.private_key": '"other-key.pem"'}, ["other-key.pem"]
    yield "users-gone", {"credentials.users_file": '"nobody"'}, ["credentials.users_file: cannot be read: No such file"]
    yield "more-certificates-gone", {"listen.more_certificates": '["nowhere.pem key.pem"]'}, ["nowhere.pem"]
    def realm(name):
        return {f'realms."{name}".origins': '["https://a.example"]', f'realms."{name}".users_file': '"users"'}
    yield "realm-as-the-default", realm(relays.REALM), ["is the default realm"]
    yield "realms-clash", {**realm("a"), **realm("b")}, ['"https://a.example" is of realm "a" already']
    yield "tls-where-tcp-is", {"listen.tls": f"[{here}]"}, ["stands in listen.tcp too"]
    yield "nowhere-to-listen", {"listen.udp": "[]", "listen.tcp": "[]", "listen.tls": "[]"}, []
