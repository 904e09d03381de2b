#!/usr/bin/env python3
"""A stand-in for Mattermost: incoming webhooks as the real server checks them, and the part of its REST API that a bot needs.

In a test:      with MattermostServer() as server:  ... server.hook_url(), server.posts, server.faults.append(status(500)) ...
As a process:   mattermost_server.py --port-file FILE [--certificate PEM --key PEM]
                writes "PORT CONTROL_PORT" to FILE; the control port speaks JSON: GET /posts, POST /reset, POST /faults
                [{"kind": "status", "code": 500}, ...], POST /always (one, or null), POST /set {"override_names": true, ...}

A fault is used up by one POST of a post (webhook, or create and patch over REST); `always` holds until it is taken away.
"""

import argparse
import base64
import dataclasses
import json
import math
import os
import socket
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote_plus, urlsplit

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import mattermost_rest
import mattermost_rules as rules
from mattermost_rest import Refusal

LONGEST_URL = 2048
WEB_PAGE = b"<!DOCTYPE html><html><head><title>Mattermost</title></head><body><div id=\"root\"></div></body></html>"


@dataclasses.dataclass
class Fault:
    kind: str              # status, hang, cut, cut_after_headers, html, redirect, slow
    code: int = 0
    after_posting: bool = False  # the post is made, and only the answer goes wrong
    seconds: float = 0
    retry_after: object = None   # 429: whole seconds or an HTTP date
    url: str = ""
    body: str = ""


def status(code, retry_after=None, body=""):
    return Fault("status", code, retry_after=retry_after, body=body)


def status_after_posting(code=500):
    return Fault("status", code, after_posting=True)


def hang(seconds, after_posting=False):
    """No answer for so long; then the connection is closed."""
    return Fault("hang", seconds=seconds, after_posting=after_posting)


def slow(milliseconds):
    return Fault("slow", seconds=milliseconds / 1000)


def cut_before_answer(after_posting=True):
    return Fault("cut", after_posting=after_posting)


def cut_after_headers(after_posting=True):
    return Fault("cut_after_headers", after_posting=after_posting)


def html_200():
    return Fault("html", 200)


def redirect(url, code=302):
    return Fault("redirect", code, url=url)


class RateLimiter:
    """GCRA: `per_second`, and `burst` more at once."""

    def __init__(self, per_second=10, burst=100):
        self.interval, self.burst, self.full_at = 1 / per_second, burst, 0.0
        self.lock = threading.Lock()

    def take(self):
        """Headers of every answer, and the seconds to wait when refused (else 0)."""
        with self.lock:
            now = time.monotonic()
            full_at = max(self.full_at, now) + self.interval
            wait = full_at - now - self.interval * (self.burst + 1)
            if wait <= 0:
                self.full_at, wait = full_at, 0
            left = int((self.interval * (self.burst + 1) - (max(self.full_at, now) - now)) / self.interval + 1e-9)
            headers = {"X-RateLimit-Limit": self.burst + 1, "X-RateLimit-Remaining": max(left, 0),
                       "X-RateLimit-Reset": math.ceil(max(self.full_at - now, 0))}
            return headers, math.ceil(wait) if wait else 0


def new_id():
    return base64.b32encode(os.urandom(17)).decode().lower()[:26].replace("=", "a")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def log_message(self, *arguments):
        pass

    def answer(self, code, body=b"", content_type="application/json", headers=None, plain=False):
        """In one write, so that no delayed acknowledgement stands between headers and body."""
        fields = {} if plain else {"X-Request-Id": self.request_id, "X-Version-Id": "11.6.0.1.abc.false", "Permissions-Policy": "",
                                   "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        fields.update(self.limit_headers)
        if content_type and body:
            fields["Content-Type"] = content_type
        fields.update(headers or {})
        fields["Content-Length"] = len(body)
        if self.close_connection:
            fields["Connection"] = "close"
        head = f"HTTP/1.1 {code} {self.responses.get(code, ('Unknown',))[0]}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
        self.wfile.write(head.encode("latin-1") + b"\r\n" + (b"" if self.command == "HEAD" else body))

    def answer_json(self, code, value):
        self.answer(code, json.dumps(value).encode())

    def refuse(self, refusal, hook_id="", media_type=""):
        owner = self.server.owner
        identity, message = refusal.identity, refusal.message
        if hook_id and owner.style == "11" and not identity.startswith("api.context.request_body"):
            word = "decode" if refusal.decoding else "general"
            identity = f"web.incoming_webhook.{word}.app_error"
            message = f"Failed to {'decode' if refusal.decoding else 'handle'} the payload of media type {media_type} for incoming webhook {hook_id}."
        elif hook_id and refusal.decoding:
            identity, message = "model.incoming_hook.parse_data.app_error", "Unable to parse incoming data."
        if owner.hardened and refusal.code >= 500:
            identity, message = "", "Internal Server Error"
        self.answer_json(refusal.code, {"id": identity, "message": message, "detailed_error": "", "request_id": self.request_id, "status_code": refusal.code})

    def handle_one(self):
        owner = self.server.owner
        self.request_id, self.limit_headers = new_id(), {}
        with owner.lock:
            owner.requests.append((self.command, self.path))
        if owner.limiter:
            self.limit_headers, wait = owner.limiter.take()
            if wait:
                self.close_connection = self.close_connection or bool(int(self.headers.get("Content-Length") or 0))
                return self.answer(429, b"limit exceeded\n", "text/plain; charset=utf-8", {"Retry-After": wait}, plain=True)
        if len(self.path) > LONGEST_URL:
            self.close_connection = True
            return self.refuse(Refusal(414, "basic_security_check.url.too_long_error", "URL is too long."))
        path = urlsplit(self.path).path
        if not path.startswith(owner.subpath):
            return self.answer(404, b"404 page not found\n", "text/plain; charset=utf-8", plain=True)
        path = path[len(owner.subpath) :]
        if path.startswith("/api/v4/"):
            return self.rest(path[len("/api/v4") :])
        hook_id = path[len("/hooks/") :] if path.startswith("/hooks/") else ""
        if self.command == "POST" and hook_id.isascii() and hook_id.isalnum():
            return self.hook(hook_id)
        if self.command in ("GET", "HEAD"):
            return self.answer(200, WEB_PAGE, "text/html")
        self.close_connection = True
        return self.answer(405)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = handle_one

    def read_body(self):
        """Up to the limit; what is beyond it is not read, and the connection ends with the answer."""
        if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
            data = b""
            while (size := int(self.rfile.readline().split(b";")[0], 16)) > 0:
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            length = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(min(length, rules.LARGEST_BODY + 1))
            self.close_connection = self.close_connection or length > len(data)
        too_large = len(data) > rules.LARGEST_BODY
        self.close_connection = self.close_connection or too_large
        return data[: rules.LARGEST_BODY], too_large

    def spoiled(self, post):
        """Carries out the fault whose turn it is around `post()`. True: that was the answer."""
        owner = self.server.owner
        with owner.lock:
            fault = owner.faults.pop(0) if owner.faults else owner.always
        if fault is None:
            return False
        if fault.after_posting:
            post()
        if fault.kind in ("slow", "hang"):
            owner.stopping.wait(fault.seconds)
        if fault.kind == "slow":
            return False
        if fault.kind in ("hang", "cut", "cut_after_headers"):
            self.close_connection = True
            if fault.kind == "cut_after_headers":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n")
                self.wfile.flush()
            try:
                self.connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        elif fault.kind == "html":
            self.answer(200, WEB_PAGE, "text/html")
        elif fault.kind == "redirect":
            self.answer(fault.code, b"", headers={"Location": fault.url})
        elif fault.code == 429:
            after = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            self.answer(429, b"limit exceeded\n", "text/plain; charset=utf-8", after, plain=True)
        elif fault.code in (502, 503, 504):
            self.answer(fault.code, b"<html><h1>Bad Gateway</h1></html>", "text/html", plain=True)
        elif fault.body:
            self.answer(fault.code, fault.body.encode(), "text/html")
        else:
            self.refuse(Refusal(fault.code, "api.post.create_webhook_post.creating.app_error", "Error creating post."),
                        urlsplit(self.path).path.rsplit("/", 1)[-1] if "/hooks/" in self.path else "", "application/json")
        return True

    def hook(self, hook_id):
        owner = self.server.owner
        content_type = self.headers.get("Content-Type") or ""
        media_type = content_type.split(";")[0].strip().lower()
        data, too_large = self.read_body()
        try:
            query = urlsplit(self.path).query
            if any(len(piece) < 2 or not all(c in "0123456789abcdefABCDEF" for c in piece[:2]) for piece in query.split("%")[1:]):
                raise Refusal(400, "web.incoming_webhook.parse_form.app_error", "Failed to parse form.")
            if media_type and ("/" not in media_type or " " in media_type):
                raise Refusal(400, "web.incoming_webhook.parse_form.app_error", "Failed to parse form.")
            if media_type == "application/x-www-form-urlencoded" and too_large:
                raise Refusal(413, "api.context.request_body_too_large.app_error", "Request body too large.")
            try:
                if media_type == "application/x-www-form-urlencoded":
                    form = parse_qs(data.decode("utf-8", "replace"), keep_blank_values=True)
                    payload = (form.get("payload") or parse_qs(query).get("payload") or [""])[0]
                    request = rules.decode_json(payload.encode())
                elif media_type == "multipart/form-data":
                    boundary = content_type.partition("boundary=")[2].strip('"').encode()
                    request = rules.decode_multipart(boundary, data)
                else:
                    request = rules.decode_json(data)
            except rules.Undecodable as e:
                raise Refusal(400, "web.incoming_webhook.decode.app_error", str(e), decoding=True) from None
            if not self.spoiled(lambda: owner.incoming(hook_id, request)):
                owner.incoming(hook_id, request)
                self.answer(200, b"ok", "text/plain")
        except Refusal as refusal:
            self.refuse(refusal, hook_id, media_type)

    def rest(self, path):
        data, _ = self.read_body()
        try:
            body = json.loads(data) if data else None
        except ValueError:
            return self.refuse(Refusal(400, "api.context.invalid_body_param.app_error", "Invalid or missing body."))

        def call():
            return mattermost_rest.call(self.server.owner, self.command, path, parse_qs(urlsplit(self.path).query),
                                        self.headers.get("Authorization") or "", body)
        try:
            if mattermost_rest.makes_a_post(self.command, path) and self.spoiled(call):
                return
            self.answer_json(*call())
        except Refusal as refusal:
            self.refuse(refusal)


class HttpServer(ThreadingHTTPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 128

    def __init__(self, owner, port, handler, context=None):
        self.owner, self.context, self.open = owner, context, set()
        super().__init__(("127.0.0.1", port), handler)

    def finish_request(self, request, address):  # on the connection's thread: a slow handshake holds up nobody else
        if self.context:
            request.settimeout(10)
            try:
                request = self.context.wrap_socket(request, server_side=True)
            except OSError as e:
                self.owner.tls_failures.append(str(e))
                return
        self.open.add(request)
        try:
            super().finish_request(request, address)
        finally:
            self.open.discard(request)
            if self.context:
                request.close()

    def handle_error(self, request, address):
        kind = sys.exc_info()[0]
        if not issubclass(kind, OSError):  # of a client that left there is nothing to say
            super().handle_error(request, address)

    def end(self):
        self.shutdown()
        self.server_close()
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Control(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def handle_one(self):
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        with owner.lock:
            if self.path == "/faults":
                owner.faults += [Fault(**fault) for fault in body]
            elif self.path == "/always":
                owner.always = Fault(**body) if body else None
            elif self.path == "/set":
                for name, value in body.items():
                    setattr(owner, name, value)
            elif self.path == "/reset":
                owner.posts, owner.faults, owner.always, owner.requests = [], [], None, []
            answer = json.dumps({"posts": owner.posts, "requests": owner.requests}).encode()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)

    do_GET = do_POST = handle_one


class MattermostServer:
    """Owns its sockets, threads and data. `hooks`: id -> {channel, locked}; `channels`: name -> channel; `posts`: as they were made."""

    def __init__(self, port=0, certificate=None, key=None, subpath="", style="11", control=False):
        self.subpath, self.style = subpath, style
        self.hardened = self.override_names = False
        self.hooks_enabled, self.limiter = True, None
        self.lock, self.stopping = threading.RLock(), threading.Event()
        self.hooks, self.channels, self.users, self.posts = {}, {}, {}, []
        self.faults, self.always = [], None
        self.requests, self.tls_failures = [], []
        self.pending, self.token, self.team = {}, new_id(), "ci"
        self.edit_limit_over = False  # PostEditTimeLimit: patches are refused
        self.bot = self.add_user("radiotower")
        for name in ("builds", "alerts", "town-square"):
            self.add_channel(name)
        self.hook = self.add_hook("builds")
        self.context = None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate, key)
        self.http = HttpServer(self, port, Handler, self.context)
        self.port = self.http.server_address[1]
        self.control = HttpServer(self, 0, Control) if control else None

    def add_user(self, name):
        self.users[name] = {"id": new_id(), "username": name}
        return self.users[name]

    def add_channel(self, name, private=False, member=True):
        self.channels[name] = {"id": new_id(), "name": name, "private": private, "member": member}
        return self.channels[name]

    def add_hook(self, channel, locked=False):
        identity = new_id()
        self.hooks[identity] = {"channel": channel, "locked": locked}
        return identity

    def url(self, host="127.0.0.1"):
        return f"{'https' if self.context else 'http'}://{host}:{self.port}{self.subpath}"

    def hook_url(self, host="127.0.0.1"):
        return f"{self.url(host)}/hooks/{self.hook}"

    def texts(self):
        with self.lock:
            return [post["message"] or " ".join(a.get("fallback") or a.get("text", "") for a in post["props"].get("attachments") or [])
                    for post in self.posts]

    def notified(self):
        with self.lock:
            return sorted({mention for post in self.posts for mention in rules.post_mentions(post, self.users)})

    def make_post(self, channel, message, props, user_id="", username="", **more):
        now = int(time.time() * 1000)
        post = {"id": new_id(), "create_at": now, "update_at": now, "channel_id": channel["id"], "channel": channel["name"],
                "message": message, "props": props, "user_id": user_id, "username": username, "root_id": "", "edits": 0, **more}
        post["notified"] = rules.post_mentions(post, self.users)
        post["complaints"] = [c for a in props.get("attachments") or [] for c in rules.attachment_complaints(a)]
        self.posts.append(post)
        return post

    def incoming(self, hook_id, request):
        """The checks of the webhook, in the server's order, and the posts they end with."""
        with self.lock:
            if not self.hooks_enabled:
                raise Refusal(501, "web.incoming_webhook.disabled.app_error", "Incoming webhooks have been disabled by the system admin.")
            if not request["text"] and request["attachments"] is None:
                raise Refusal(400, "web.incoming_webhook.text.app_error", "No text specified.")
            hook = self.hooks.get(hook_id)
            if hook is None:
                raise Refusal(400, "web.incoming_webhook.invalid.app_error", "Invalid webhook.")
            names = {user["id"]: name for name, user in self.users.items()}
            text = rules.process_slack_text(request["text"], names)
            attachments = rules.process_attachments(request["attachments"], names)
            kind = "slack_attachment" if attachments else request["type"]
            name = request["channel"]
            if name.startswith("@"):
                if name[1:] not in self.users:
                    raise Refusal(400, "web.incoming_webhook.user.app_error", "Couldn't find the user.")
                channel = self.direct(self.users[name[1:]]["id"])
            else:
                name = name[1:] if name.startswith("#") else name
                channel = self.channels.get(name or hook["channel"])
                if channel is None:
                    identity = "web.incoming_webhook.channel.app_error" if name else "app.channel.get.existing.app_error"
                    raise Refusal(404, identity, "Couldn't find the channel.")
            if hook["locked"] and channel["name"] != hook["channel"]:
                raise Refusal(403, "web.incoming_webhook.channel_locked.app_error", "This webhook is not permitted to post to the requested channel.")
            if channel["private"] and not channel["member"]:
                raise Refusal(403, "web.incoming_webhook.permissions.app_error", "Inappropriate channel permissions.")
            if request["priority"] is not None and request["priority"]["priority"] is None:
                raise Refusal(400, "api.context.invalid_param.app_error", "Invalid webhook.priority.priority parameter.")
            if kind.startswith("system_"):
                raise Refusal(400, "api.context.invalid_param.app_error", "Invalid post.type parameter.")
            if len(json.dumps(request["props"], ensure_ascii=False)) > rules.PROPS_LIMIT:
                raise Refusal(400, "web.incoming_webhook.split_props_length.app_error", "Unable to split webhook props.")
            if kind not in rules.POST_TYPES and not kind.startswith("custom_"):
                raise Refusal(500, "api.post.create_webhook_post.creating.app_error", "Error creating post.")
            chunks = rules.split_text(text)
            props = {key: value for key, value in request["props"].items() if key not in ("from_webhook", "override_username", "override_icon_url")}
            username = (request["username"] or "webhook") if self.override_names else ""
            for number, chunk in enumerate(chunks):
                more = {"attachments": attachments} if attachments and number == len(chunks) - 1 else {}
                self.make_post(channel, chunk, {**props, **more, "from_webhook": "true"}, username=username, type=kind)

    def direct(self, user_id):
        name = "__".join(sorted((self.bot["id"], user_id)))
        return self.channels.get(name) or self.add_channel(name, private=True)

    def start(self):
        for server in filter(None, (self.http, self.control)):
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        self.stopping.set()
        for server in filter(None, (self.http, self.control)):
            server.end()

    def __enter__(self):
        return self.start()

    def __exit__(self, *exception):
        self.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--subpath", default="")
    parser.add_argument("--style", choices=("9", "11"), default="11")
    parser.add_argument("--rate-limit", action="store_true", help="10 a second and 100 at once, as the server's defaults")
    given = parser.parse_args()
    with MattermostServer(given.port, given.certificate, given.key, given.subpath, given.style, control=True) as server:
        server.limiter = RateLimiter() if given.rate_limit else None
        print(f"hook {server.hook_url()}\ntoken {server.token} team {server.team}\ncontrol http://127.0.0.1:{server.control.server_address[1]}", flush=True)
        if given.port_file:
            with open(given.port_file + ".new", "w") as f:
                f.write(f"{server.port} {server.control.server_address[1]}\n")
            os.rename(given.port_file + ".new", given.port_file)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
