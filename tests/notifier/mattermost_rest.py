"""The part of Mattermost's REST API v4 that a bot needs, on the data of a MattermostServer."""

import re
import time

import mattermost_rules as rules

DEDUPLICATED_SECONDS = 30  # a pending_post_id is remembered so long


class Refusal(Exception):
    def __init__(self, code, identity, message, decoding=False):
        super().__init__(message)
        self.code, self.identity, self.message, self.decoding = code, identity, message, decoding


def makes_a_post(method, path):
    return (method == "POST" and path == "/posts") or (method == "PUT" and re.fullmatch(r"/posts/\w+/patch", path) is not None)


def not_found(what):
    return Refusal(404, f"app.{what}.get.app_error", f"Unable to find the existing {what}.")


def find_post(server, identity):
    for post in server.posts:
        if post["id"] == identity:
            return post
    raise not_found("post")


def checked_text(body):
    message = body.get("message") or ""
    if not isinstance(message, str):
        raise Refusal(400, "api.context.invalid_body_param.app_error", "Invalid or missing post in request body.")
    if len(message) > rules.LONGEST_TEXT:
        raise Refusal(400, "model.post.is_valid.message_length.app_error", "Post Message property is longer than the maximum permitted length.")
    return message


def create(server, body):
    pending = body.get("pending_post_id") or ""
    made, when = server.pending.get(pending, (None, 0))
    if pending and made and time.monotonic() - when < DEDUPLICATED_SECONDS:
        return 201, made
    channel = next((c for c in server.channels.values() if c["id"] == body.get("channel_id")), None)
    if channel is None or not channel["member"]:
        raise Refusal(403, "api.context.permissions.app_error", "You do not have the appropriate permissions.")
    message, props, root = checked_text(body), body.get("props") or {}, body.get("root_id") or ""
    if not message and not props.get("attachments"):
        raise Refusal(400, "api.post.create_post.empty.app_error", "Post message is empty.")
    if root:
        above = next((post for post in server.posts if post["id"] == root), None)
        if above is None or above["root_id"] or above["channel_id"] != channel["id"]:
            raise Refusal(400, "api.post.create_post.root_id.app_error", "Invalid RootId parameter.")
    post = server.make_post(channel, message, props, user_id=server.bot["id"], username=server.bot["username"])
    post["root_id"], post["pending_post_id"] = root, pending
    if pending:
        server.pending[pending] = (post, time.monotonic())
    return 201, post


def patch(server, identity, body):
    post = find_post(server, identity)
    if post["user_id"] != server.bot["id"]:
        raise Refusal(403, "api.context.permissions.app_error", "You do not have the appropriate permissions.")
    if server.edit_limit_over:
        raise Refusal(400, "api.post.update_post.permissions_time_limit.app_error", "Post edit is only allowed for some seconds.")
    if "message" in body:
        post["message"] = checked_text(body)
    if "props" in body:
        post["props"] = body["props"] or {}
    post["edits"] += 1
    post["update_at"] = int(time.time() * 1000)
    post["notified"] = sorted(set(post["notified"]) | set(rules.post_mentions(post, server.users)))
    return 200, post


def call(server, method, path, query, authorization, body):
    """(status, value), or a Refusal."""
    if path == "/system/ping" and method == "GET":
        return 200, {"status": "OK", "ActiveSearchBackend": "database"}
    if authorization not in (f"Bearer {server.token}", f"BEARER {server.token}"):
        raise Refusal(401, "api.context.session_expired.app_error", "Invalid or expired session, please login again.")
    with server.lock:
        parts = [part for part in path.split("/") if part]
        if method == "GET" and parts == ["users", "me"]:
            return 200, server.bot
        if method == "GET" and parts[:2] == ["users", "username"] and len(parts) == 3:
            if parts[2] not in server.users:
                raise not_found("user")
            return 200, server.users[parts[2]]
        if method == "GET" and parts[:2] == ["teams", "name"] and len(parts) == 6 and parts[3:5] == ["channels", "name"]:
            if parts[2] != server.team:
                raise not_found("team")
            channel = server.channels.get(parts[5])
            if channel is None or (channel["private"] and not channel["member"]):
                raise not_found("channel")
            return 200, channel
        if method == "POST" and parts == ["channels", "direct"]:
            known = {user["id"] for user in server.users.values()}
            if not isinstance(body, list) or len(body) != 2 or not set(body) <= known or server.bot["id"] not in body:
                raise Refusal(400, "api.context.invalid_body_param.app_error", "Invalid or missing user_ids in request body.")
            other = next((identity for identity in body if identity != server.bot["id"]), server.bot["id"])
            return 201, server.direct(other)
        if method == "POST" and parts == ["posts"]:
            return create(server, body or {})
        if method == "PUT" and len(parts) == 3 and parts[0] == "posts" and parts[2] == "patch":
            return patch(server, parts[1], body or {})
        if method == "GET" and len(parts) == 2 and parts[0] == "posts":
            return 200, find_post(server, parts[1])
        if method == "GET" and len(parts) == 3 and parts[0] == "channels" and parts[2] == "posts":
            since = int((query.get("since") or ["0"])[0])
            found = [post for post in server.posts if post["channel_id"] == parts[1] and post["update_at"] >= since]
            return 200, {"order": [post["id"] for post in reversed(found)], "posts": {post["id"]: post for post in found}}
    raise Refusal(404, "api.context.404.app_error", "Sorry, we could not find the page.")
