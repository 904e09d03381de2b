"""What Mattermost's server does to a webhook's request, as pure functions: decoding, Slack's notations, mentions, splitting.

Follows server 11.6; where 9.11 answers with other words, `style` says so. mattermost_server.py puts HTTP around it.
"""

import json
import re

LONGEST_TEXT = 16383  # runes of one post: longer text is split, not refused
LARGEST_BODY = 300000 + 512
PROPS_LIMIT = 760000
POST_TYPES = ("", "slack_attachment", "me", "reminder", "add_bot_teams_channels", "burn_on_read")

STRINGS = ("text", "username", "icon_url", "channel", "type", "icon_emoji", "root_id")
ATTACHMENT_STRINGS = ("fallback", "color", "pretext", "author_name", "author_link", "author_icon", "title", "title_link", "text",
                      "image_url", "thumb_url", "footer", "footer_icon")
FORM_KEYS = {"text": "text", "username": "username", "iconurl": "icon_url", "channelname": "channel", "type": "type", "iconemoji": "icon_emoji"}
RAW_BREAKS = re.compile(r'(?s)"(?:text|fallback|pretext|author_name|title|value)"\s*:\s*"(?:\\"|[^"])*"')


class Undecodable(Exception):
    pass


# --- JSON as Go reads it ---

def no_constant(word):
    raise Undecodable(word)


def without_surrogates(value):
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, list):
        return [without_surrogates(entry) for entry in value]
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(entry) for key, entry in value.items()}
    return value


def first_value(text):
    """The first JSON value; what comes behind it is not looked at."""
    try:
        value, _ = json.JSONDecoder(parse_constant=no_constant).raw_decode(text.lstrip(" \t\r\n"))
    except (ValueError, RecursionError) as e:
        raise Undecodable(str(e)) from None
    return without_surrogates(value)


def of_type(value, kind, what):
    """Go leaves a field as it is for null, and fails for another type."""
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Undecodable(what)
    return value


def struct(value, what):
    """Keys match whatever their case; of several the last counts."""
    return {key.lower(): entry for key, entry in (of_type(value, dict, what) or {}).items()}


def go_text(value):
    """fmt.Sprintf("%v")."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) < 1e21 else re.sub(r"e([+-])(\d)$", r"e\g<1>0\2", repr(number))
    if isinstance(value, list):
        return "[" + " ".join(go_text(entry) for entry in value) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_text(value[key])}" for key in sorted(value)) + "]"
    return "<nil>"


def field_of(value):
    found = struct(value, "field")
    field = {"title": of_type(found.get("title"), str, "field.title") or "", "value": None, "short": False}
    if found.get("value") is not None:
        field["value"] = go_text(found["value"])
    short = found.get("short")
    if isinstance(short, str) and short.lower() in ("true", "false"):
        short = short.lower() == "true"
    field["short"] = bool(of_type(short, bool, "field.short"))
    return field


def attachment_of(value):
    found = struct(value, "attachment")
    attachment = {}
    of_type(found.get("id"), int, "attachment.id")
    for key in ATTACHMENT_STRINGS:
        text = of_type(found.get(key), str, f"attachment.{key}")
        if text:
            attachment[key] = text
    fields = of_type(found.get("fields"), list, "attachment.fields") or []
    fields = [field_of(field) for field in fields if field is not None]
    if fields:
        attachment["fields"] = fields
    if found.get("ts") is not None:
        attachment["ts"] = found["ts"]
    of_type(found.get("actions"), list, "attachment.actions")
    return attachment


def webhook_request(value):
    found = struct(value, "request")
    request = {key: of_type(found.get(key), str, key) or "" for key in STRINGS}
    request["props"] = of_type(found.get("props"), dict, "props") or {}
    attachments = of_type(found.get("attachments"), list, "attachments") or []
    request["attachments"] = [attachment_of(entry) for entry in attachments if entry is not None] or None
    request["priority"] = None
    if found.get("priority") is not None:
        priority = struct(found["priority"], "priority")
        of_type(priority.get("requested_ack"), bool, "priority.requested_ack")
        of_type(priority.get("persistent_notifications"), bool, "priority.persistent_notifications")
        request["priority"] = {"priority": of_type(priority.get("priority"), str, "priority.priority")}
    return request


def decode_json(data):
    """The request of a body; a body that can't be read gets one more chance with its raw line feeds and tabs escaped."""
    text = data.decode("utf-8", "replace")
    try:
        return webhook_request(first_value(text))
    except Undecodable:
        escaped = RAW_BREAKS.sub(lambda found: found.group(0).replace("\n", "\\n").replace("\t", "\\t"), text)
        if escaped == text:
            raise
        return webhook_request(first_value(escaped))


def decode_multipart(boundary, data):
    request = webhook_request({})
    for part in data.split(b"--" + boundary)[1:-1]:
        head, _, value = part.strip(b"\r\n").partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]*)"', head)
        key = name.group(1).decode("utf-8", "replace").lower() if name else ""
        if key not in FORM_KEYS:
            raise Undecodable(f"unknown key {key}")
        request[FORM_KEYS[key]] = value.decode("utf-8", "replace")
    return request


# --- what becomes of the text ---

def process_slack_text(text, user_names=None, over_lines=False):
    for word in ("channel", "here", "all"):
        text = text.replace(f"<!{word}>", f"@{word}")
    text = re.sub(r"<@([a-z0-9]{26})>", lambda found: "@" + (user_names or {}).get(found.group(1), found.group(0)[2:-1]), text)
    links = r"<([^<\|]+)\|([^>]+)>" if over_lines else r"<([^\n<\|>]+)\|([^\|\n>]+)>"
    return re.sub(links, r"[\2](\1)", text)


def process_attachments(attachments, user_names=None):
    for attachment in attachments or []:
        for key in ("pretext", "text", "title"):
            if key in attachment:
                attachment[key] = process_slack_text(attachment[key], user_names, over_lines=key != "title")
        for field in attachment.get("fields", []):
            if field["value"] is not None:
                field["value"] = process_slack_text(field["value"], user_names, over_lines=True)
    return attachments


def attachment_complaints(attachment):
    """What the server would write into its log: it posts such an attachment all the same (until a later version refuses it)."""
    complaints = []
    if attachment.get("color") and not re.fullmatch(r"good|warning|danger|#[0-9A-Fa-f]{6}", attachment["color"]):
        complaints.append("color")
    for link, owner in (("author_link", "author_name"), ("title_link", "title")):
        if attachment.get(link) and not attachment.get(owner):
            complaints.append(link)
    for key in ("author_link", "title_link", "author_icon", "image_url", "thumb_url", "footer_icon"):
        if attachment.get(key) and not re.match(r"https?://[^/\s]+", attachment[key]):
            complaints.append(key)
    if not isinstance(attachment.get("ts", 0), (int, float, str)):
        complaints.append("ts")
    return complaints


def split_text(text):
    return [text[i : i + LONGEST_TEXT] for i in range(0, len(text), LONGEST_TEXT)] or [""]


ENTITIES = re.compile(r"&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([A-Za-z][A-Za-z0-9]{1,31}));")


def unescape_entities(text):
    from html import unescape
    return ENTITIES.sub(lambda found: unescape(found.group(0)), text)


def without_code(text):
    """Markdown without what stands in code, entities decoded. Indented code counts as text here: nobody should rely on it."""
    kept, fence = [], None
    for line in text.split("\n"):
        mark = re.match(r"[ >]{0,12}(`{3,}|~{3,})(.*)$", line)
        if fence is None and mark and not (mark.group(1)[0] == "`" and "`" in mark.group(2)):
            fence = mark.group(1)
        elif fence is not None:
            if mark and mark.group(1).startswith(fence) and not mark.group(2).strip():
                fence = None
        else:
            kept.append(line)
    text, out, at = "\n".join(kept), [], 0
    for paragraph in re.split(r"(\n[ \t]*\n)", text):  # a code span never crosses a blank line
        at, length = 0, len(paragraph)
        while at < length:
            character = paragraph[at]
            if character == "\\" and at + 1 < length:
                out.append(paragraph[at : at + 2].lstrip("\\") if paragraph[at + 1] in "`\\" else paragraph[at : at + 2])
                at += 2
            elif character == "`":
                run = re.match(r"`+", paragraph[at:]).group(0)
                close = re.search(r"(?<!`)" + run + r"(?!`)", paragraph[at + len(run) :])
                if close:
                    out.append(" ")
                    at += len(run) + close.end()
                else:
                    out.append(run)
                    at += len(run)
            else:
                out.append(character)
                at += 1
    return unescape_entities("".join(out))


def mentions(text, user_names=()):
    """Who would be notified by this Markdown: of @all, @channel, @here and the given users."""
    wanted = {"@all", "@channel", "@here"} | {"@" + name.lower() for name in user_names}
    found = set()
    for word in re.split(r"[^\w:.\-@]+", without_code(text)):
        if word.startswith(":") and word.endswith(":") and len(word) > 1:  # an emoji
            continue
        whole = word.lower().lstrip(":.-_").rstrip(":.-_")
        for piece in [whole] + [piece.rstrip("_") for piece in re.split(r"[.:-]", whole)]:
            if piece in wanted:
                found.add(piece)
    return sorted(found)


def post_mentions(post, user_names=()):
    """Of a whole post: its text and every text of its attachments that anybody has seen notify."""
    texts = [post.get("message", "")]
    for attachment in post.get("props", {}).get("attachments") or []:
        texts += [attachment.get(key) or "" for key in ("pretext", "text", "title", "fallback", "author_name", "footer")]
        for field in attachment.get("fields") or []:
            texts += [field.get("title") or "", str(field.get("value") or "")]
    return sorted({mention for text in texts for mention in mentions(text, user_names)})
