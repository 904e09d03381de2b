"""The Markdown that docs/ is written in, as a manual page: headings, paragraphs, lists, tables, code, links. Not all of Markdown."""
import re

ESCAPES = {"\\": r"\e", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
SIGNS = {"→": "->", "►": ">", "◄": "<"}


def plain(text, code=False):
    """Characters that roff would take for something else. In code a hyphen is a minus, which can be copied."""
    out = []
    for character in text:
        character = SIGNS.get(character, character)
        if character == "'" and not code:
            out.append("'")
        elif character == "-" and code:
            out.append(r"\-")
        else:
            out.append(ESCAPES.get(character, character))
    return "".join(out)


INLINE = re.compile(r"(`+)(?P<code>.+?)\1(?!`)|\*\*(?P<bold>.+?)\*\*|(?<![\w*])\*(?P<italic>[^*\s][^*]*?)\*(?![\w*])|\[(?P<link>(?:[^\[\]`]|`[^`]*`)+)\]\((?P<target>[^)]*)\)")


def inline(text, outer="R"):
    out, at = [], 0
    for match in INLINE.finditer(text):
        out.append(flags(text[at:match.start()], outer))
        at = match.end()
        if match.group("code") is not None:
            out.append(r"\fB" + plain(match.group("code"), code=True) + rf"\f{outer}")
        elif match.group("bold") is not None:
            out.append(r"\fB" + inline(match.group("bold"), "B") + rf"\f{outer}")
        elif match.group("italic") is not None:
            out.append(r"\fI" + inline(match.group("italic"), "I") + rf"\f{outer}")
        else:
            out.append(inline(match.group("link"), outer))
            if "://" in match.group("target"):
                out.append(" <" + plain(match.group("target"), code=True) + ">")
    return "".join(out) + flags(text[at:], outer)


def flags(text, outer):
    """Flags in running text are to be copied too: --json, -4."""
    parts = re.split(r"((?<![\w-])--?[A-Za-z0-9][\w-]*)", text)
    return "".join(plain(part, code=index % 2 == 1) for index, part in enumerate(parts))


def guard(line):
    return r"\&" + line if line[:1] in (".", "'") else line


def paragraph(text):
    """One sentence a line would need a reader; a line of roff is as long as it is. Too long ones are folded between words."""
    words, lines, line = text.split(), [], ""
    for word in words:
        if line and len(line) + 1 + len(word) > 120:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    if line:
        lines.append(line)
    return [guard(line) for line in lines]


def cells(row):
    row = row.strip().strip("|")
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)]


def table(rows):
    """Each row an entry: the first column is what it is about, the last one says it, those between come as a sentence."""
    header = cells(rows[0])
    out = []
    for row in rows[2:]:
        columns = cells(row)
        out += [".TP", guard(inline(" ".join(columns[:1])) or r"\ ")]
        said = inline(columns[-1]) if len(columns) > 1 else ""
        between = [f"{header[i] if i < len(header) else ''}: {columns[i]}" for i in range(1, len(columns) - 1) if columns[i]]
        out += paragraph(said) if said else []
        if between:
            sentence = "; ".join(between) + "."
            if said:
                out.append(".br")
            out += paragraph(inline(sentence[:1].upper() + sentence[1:]))
        elif not said:
            out.append(r"\ ")
    return out


def code(lines):
    return [".PP", ".in +4n", ".nf", *[guard(plain(line, code=True)) for line in lines], ".fi", ".in"]


def convert(markdown, shift=0):
    """Lines of roff. `shift` deepens headings: 1 makes of the title of a document a section."""
    out, lines, at = [], markdown.split("\n"), 0
    fresh = True       # a heading has just been set: no .PP after it

    def flowing(start):
        """The lines of one paragraph or list entry, joined."""
        end = start + 1
        while end < len(lines) and lines[end].strip() and not re.match(r"\s*([-*] |\d+\. |\||```|#)", lines[end]):
            end += 1
        return " ".join(line.strip() for line in lines[start:end]), end

    while at < len(lines):
        line = lines[at]
        heading = re.match(r"(#+) (.*)", line)
        if not line.strip() or re.match(r"</?(img|p|div)\b.*>$", line.strip()):  # a page of the manual has no pictures
            at += 1
            continue
        if line.strip().startswith("```"):
            end = next(i for i in range(at + 1, len(lines)) if lines[i].strip().startswith("```"))
            out += code(lines[at + 1:end])
            fresh, at = False, end + 1
            continue
        if heading:
            depth = len(heading.group(1)) + shift
            title = re.sub(r"`", "", heading.group(2))
            if depth <= 2:
                out += [".SH " + quoted(title.upper() if "." not in title else title)]
            elif depth == 3:
                out += [".SS " + quoted(title)]
            else:
                out += [".PP", r"\fB" + plain(title) + r"\fR"]
            fresh = depth <= 3
            at += 1
            continue
        if line.startswith("|"):
            end = at
            while end < len(lines) and lines[end].startswith("|"):
                end += 1
            out += table(lines[at:end])
            fresh, at = False, end
            continue
        item = re.match(r"\s*([-*]|\d+\.) (.*)", line)
        if item:
            text, at = flowing(at)
            text = text.split(" ", 1)[1]
            mark = r"\(bu 2" if item.group(1) in "-*" else f"{item.group(1)} 4"
            out += [f".IP {mark}", *paragraph(inline(text))]
            fresh = False
            continue
        text, at = flowing(at)
        out += ([] if fresh else [".PP"]) + paragraph(inline(text))
        fresh = False
    return out


def quoted(text):
    return '"' + plain(text).replace('"', r"\(dq") + '"' if " " in text else plain(text)
