"""A call of a browser with itself through a relay: relayed candidates alone, REST credentials, video and a data channel; Chromium over UDP,
and Chromium and Firefox over TCP and TLS, for which they trust the relay's private CA as a phone is made to.

A browser gets page.html from a server on loopback and posts what it measured to it, so no driver is needed. Chromium may resolve no
name and reach nothing but loopback; Firefox runs where there is nothing else (see alone.py).
"""

import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import urllib.parse

import alone
from relay import Failure, rest_credential

MESSAGES, VIDEO_SECONDS, PAGE_SECONDS, TIMEOUT_SECONDS = 1000, 8, 90, 180
FRAMES_AT_LEAST = 61  # of 160 at 20 a second: encoder and decoder share their cores with others
FLAGS = [
    "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio", "--no-first-run", "--no-default-browser-check",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required",
    "--allow-loopback-in-peer-connection", "--disable-features=WebRtcHideLocalIpsWithMdns,MediaRouter,OptimizationHints",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-domain-reliability",
    "--disable-extensions", "--disable-sync", "--no-pings", "--no-proxy-server", "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]


class PageServer:
    """Serves page.html and takes its one result."""

    def __enter__(self):
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "page.html"), "rb") as f:
            page = f.read()
        self.results = results = queue.Queue()

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self, status, body=b""):
                self.send_response(status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                self.answer(200, page) if self.path == "/" else self.answer(404)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(204)
                results.put(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def url(self, wanted):
        return f"http://127.0.0.1:{self.server.server_address[1]}/#{urllib.parse.quote(json.dumps(wanted))}"


def trust(folder, ca):
    """The CA into an NSS database, where both browsers look for what their user trusts."""
    os.makedirs(folder, exist_ok=True)
    for words in (["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "office", "-i", ca]):
        done = subprocess.run(["certutil", "-d", f"sql:{folder}", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise Failure(f"certutil: {done.stdout.strip()}")


def chromium(folder, ca):
    if ca:
        trust(f"{folder}/.pki/nssdb", ca)
    return ["chromium", *FLAGS, f"--user-data-dir={folder}/profile", *(["--no-sandbox"] if os.geteuid() == 0 else [])]


PREFERENCES = {
    "media.navigator.streams.fake": True, "media.navigator.permission.disabled": True, "media.peerconnection.ice.loopback": True,
    "media.peerconnection.ice.obfuscate_host_addresses": False, "media.autoplay.default": 0, "media.gmp-manager.updateEnabled": False,
    "media.peerconnection.treat_warnings_as_errors": False, "media.getusermedia.insecure.enabled": True,
    "browser.shell.checkDefaultBrowser": False, "browser.aboutwelcome.enabled": False, "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False, "browser.safebrowsing.malware.enabled": False, "browser.safebrowsing.phishing.enabled": False,
    "network.captive-portal-service.enabled": False, "network.connectivity-service.enabled": False, "app.normandy.enabled": False,
    "app.update.auto": False, "browser.sessionstore.resume_from_crash": False, "network.proxy.type": 0, "network.dns.disabled": False,
    "security.sandbox.content.level": 0,
}


def firefox(folder, ca):
    profile = f"{folder}/profile"
    os.makedirs(profile)
    if ca:
        trust(profile, ca)
    with open(f"{profile}/user.js", "w") as out:
        for name, value in PREFERENCES.items():
            out.write(f"user_pref({json.dumps(name)}, {json.dumps(value)});\n")
    return ["firefox-esr", "--headless", "--no-remote", "--profile", profile]


def measure(browser, ca, url, results):
    """Runs a browser until the page has posted, and ends it with all its children: they share a process group of their own."""
    folder = tempfile.mkdtemp(prefix="interop-browser-")
    environment = {**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder, "XDG_CACHE_HOME": folder, "MOZ_DISABLE_CONTENT_SANDBOX": "1"}
    with open(f"{folder}/log", "wb+") as log:
        process = subprocess.Popen([*browser(folder, ca), url], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            return json.loads(results.get(timeout=TIMEOUT_SECONDS))
        except queue.Empty:
            log.seek(0)
            tail = log.read().decode(errors="replace").strip().splitlines()[-3:]
            raise Failure(f"page posted nothing in {TIMEOUT_SECONDS} s: {' | '.join(tail)}") from None
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)


# Firefox takes no turns: URL with an address in it: it asks nobody, and says nothing (ESR 153).
NAMES = {chromium: "127.0.0.1", firefox: "localhost"}


def url_of(relay, browser, transport):
    return f"turns:{NAMES[browser]}:{relay.tls_port}?transport=tcp" if transport == "tls" else f"turn:127.0.0.1:{relay.port}?transport={transport}"


def call(relay, browser, transport):
    username, credential = rest_credential("browser")
    wanted = {"urls": url_of(relay, browser, transport), "username": username, "credential": credential,
              "messages": MESSAGES, "seconds": VIDEO_SECONDS, "frames": FRAMES_AT_LEAST,
              "timeout": PAGE_SECONDS}
    with PageServer() as server:
        return measure(browser, relay.ca, server.url(wanted), server.results)


def check_connected(result, transport):
    if "pairs" not in result:
        raise Failure(f"{result.get('error')} at step {result['step']}, {result['echoed']} messages echoed, ICE: {result['ice_errors']}")
    for pair in result["pairs"]:
        if (pair["local"], pair["remote"], pair["protocol"]) != ("relay", "relay", transport):
            raise Failure(f"selected {pair}")
    return f"relay/relay over {transport.upper()}, {result['pairs'][0]['address']}, round trip {1000 * result['pairs'][0]['round_trip']:.0f} ms"


def check_messages(result):
    numbers = f"{result['echoed']} of {MESSAGES} echoed, {result['altered']} altered"
    if result["echoed"] != MESSAGES or result["altered"]:
        raise Failure(numbers)
    return numbers


def check_video(result):
    video = result.get("video")
    if not video:
        raise Failure("no video came in")
    numbers = (f"{video['decoded']} frames decoded, {video['received']} packets, {video['bytes']} bytes, {video['lost']} lost, "
               f"{video['freezes']} freezes")
    if video["decoded"] < FRAMES_AT_LEAST or video["lost"] != 0:
        raise Failure(numbers)
    return numbers


def run(make_relay, report):
    def cases(relay, name, browser, transport):
        result = {}

        def connects():
            result.update(call(relay, browser, transport))
            return check_connected(result, transport)

        report.case(f"{name} over {transport}: connects by relay only", connects)
        if "pairs" in result:
            report.case(f"{name} over {transport}: data channel", lambda: check_messages(result))
            report.case(f"{name} over {transport}: video", lambda: check_video(result))

    report.with_relay("browser", make_relay(rest=True), lambda relay: cases(relay, "chromium", chromium, "udp"))

    def over_streams(relay):
        for name, browser in (("chromium", chromium), ("firefox", firefox)):
            for transport in ("tcp", "tls"):
                cases(relay, name, browser, transport)

    with alone.on_loopback():
        report.with_relay("browsers over streams", make_relay(rest=True, tls=True), over_streams)
