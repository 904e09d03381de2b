"""Certificates for tests, made with the openssl program in a folder of the test's own."""

import os
import subprocess


class Authority:
    def __init__(self, folder, name="City Root CA", days=30):
        self.folder, self.name = folder, name
        self.file, self.key = self.path("pem"), self.path("key")
        run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self.key, "-out", self.file,
            "-subj", f"/CN={name}", "-days", str(days), "-addext", "keyUsage=critical,keyCertSign")

    def path(self, ending):
        return os.path.join(self.folder, f"{self.name.lower().replace(' ', '-')}.{ending}")

    def issue(self, name, names="IP:127.0.0.1", days=30):
        """(certificate file, key file). `days` of -1: expired yesterday."""
        base = os.path.join(self.folder, name)
        with open(base + ".extensions", "w") as f:
            f.write(f"subjectAltName={names}\nbasicConstraints=critical,CA:FALSE\n")
        run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", base + ".key", "-out", base + ".request",
            "-subj", f"/CN={name}")
        run("x509", "-req", "-in", base + ".request", "-CA", self.file, "-CAkey", self.key, "-CAcreateserial", "-days", str(days),
            "-extfile", base + ".extensions", "-out", base + ".pem")
        return base + ".pem", base + ".key"


def run(*arguments):
    done = subprocess.run(("openssl",) + arguments, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr.strip()[-500:]}")
