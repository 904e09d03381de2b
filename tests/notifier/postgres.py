"""Debian's own PostgreSQL for a test: a cluster in a folder of its own, on a Unix socket alone, ended by its pid."""

import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time

from cases import Failure


class Postgres:
    def __enter__(self):
        binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        if not binaries:
            raise Failure("PostgreSQL is not installed")
        self.folder = tempfile.mkdtemp(prefix="notifier-postgres-")
        become = {}
        if os.getuid() == 0:  # it refuses to run as root
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            become = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        os.chmod(self.folder, 0o755)
        data = self.folder + "/data"
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": self.folder}
        made = subprocess.run([binaries[-1] + "/initdb", "-D", data, "-U", "radiotower", "--auth=trust", "-E", "UTF8"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=environment, cwd=self.folder, **become)
        if made.returncode:
            raise Failure(f"initdb: {made.stdout.decode(errors='replace')[-400:]}")
        self.log = open(self.folder + "/log", "wb")
        self.process = subprocess.Popen([binaries[-1] + "/postgres", "-D", data, "-k", self.folder, "-c", "listen_addresses="], stdout=self.log, stderr=self.log, env=environment,
                                        cwd=self.folder, **become)
        end = time.monotonic() + 60
        while not os.path.exists(self.folder + "/.s.PGSQL.5432"):
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failure("PostgreSQL did not start")
            time.sleep(0.05)
        while not self.answers(binaries[-1]):  # it listens before it takes anybody
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failure("PostgreSQL did not start")
            time.sleep(0.05)
        self.url = f"postgresql://radiotower@/postgres?host={self.folder}"
        return self

    def answers(self, binaries):
        return subprocess.run([binaries + "/pg_isready", "-q", "-h", self.folder, "-U", "radiotower"], stdin=subprocess.DEVNULL).returncode == 0

    def __exit__(self, *exception):
        self.process.send_signal(signal.SIGINT)  # fast shutdown
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
