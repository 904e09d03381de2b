"""A private CA and a certificate by it, as a team without a public one has them. Made with the openssl program."""

import os
import subprocess

from cases import Failure

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
RSA_KEY = ["-newkey", "rsa:2048", "-nodes"]


def openssl(folder, *words):
    done = subprocess.run(["openssl", *words], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Failure(f"openssl {words[0]}: {done.stdout.strip()[-300:]}")


def make_ca(folder, name="Office CA"):
    """ca.pem and ca.key."""
    openssl(folder, "req", "-x509", *KEY, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", f"/CN={name}", "-addext",
            "keyUsage=critical,keyCertSign,cRLSign")
    return os.path.join(folder, "ca.pem")


def issue(folder, certificate="certificate.pem", key="key.pem", names="DNS:tower.lan,DNS:localhost,IP:127.0.0.1,IP:::1", subject="tower.lan", of=KEY):
    """A certificate by the CA of this folder, with its key, which nobody else may read."""
    openssl(folder, "req", *of, "-keyout", key, "-out", "request.pem", "-subj", f"/CN={subject}")
    with open(os.path.join(folder, "extensions"), "w") as out:
        out.write(f"subjectAltName={names}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n")
    openssl(folder, "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions",
            "-out", certificate)
    os.chmod(os.path.join(folder, key), 0o600)
