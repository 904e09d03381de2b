"""What a program says about itself with --help, subcommands included, as CLI11 prints it."""
import dataclasses
import os
import re
import subprocess


@dataclasses.dataclass
class Option:
    names: list        # ["-h", "--help"]
    value: str         # "FILE", "N:UINT in [1 - 100]=10 ...", "" for a flag
    text: str          # what it does

    @property
    def placeholder(self):
        """The word that stands for the value: "FILE", "N"; "" for a flag."""
        return re.split(r"[:=\s\[]", self.value, maxsplit=1)[0] if self.takes_value else ""

    @property
    def takes_value(self):
        return bool(re.sub(r"\b(REQUIRED|Excludes: .*|Needs: .*|\(Env:[^)]*\))", "", self.value).strip())

    @property
    def choices(self):
        found = re.search(r":\{([^}]*)\}", self.value)
        return found.group(1).split(",") if found else []

    @property
    def is_file(self):
        if not self.takes_value or self.choices:
            return False
        return self.placeholder in ("FILE", "PATH", "DIR", "FOLDER") or any(
            re.fullmatch(r"--(.*-)?(config|file|certificate|key|ca|db|output|socket)", name) for name in self.names)


@dataclasses.dataclass
class Command:
    path: list                                              # ["radiotower", "turn"]
    about: str = ""                                         # the sentence above "Usage:"
    usage: str = ""
    positionals: list = dataclasses.field(default_factory=list)   # of Option, each with one name
    options: list = dataclasses.field(default_factory=list)
    commands: list = dataclasses.field(default_factory=list)      # of Command, in the order of --help
    footer: str = ""                                        # examples and notes, as they are

    def walk(self):
        yield self
        for command in self.commands:
            yield from command.walk()


HEADING = re.compile(r"^(?! )(.*):$")
ALL_OPTION = re.compile(r"(?:-\w|--[\w-]+)(?:,(?:-\w|--[\w-]+))*")


def says(program, arguments):
    """The text of --help. Leaks on the way out of a sanitizer's build are no matter of the manual's."""
    environment = dict(os.environ, ASAN_OPTIONS="detect_leaks=0", LC_ALL="C.UTF-8", COLUMNS="80")
    for name in list(environment):
        if name.startswith("RADIOTOWER_"):
            del environment[name]
    run = subprocess.run([program, *arguments, "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                         env=environment)
    if run.returncode != 0 or not run.stdout:
        raise SystemExit(f"{program} {' '.join(arguments)} --help ended with {run.returncode}: {run.stderr.strip()}")
    return run.stdout


def entry(line, next_line):
    """A line of a list: its left column, and the right one, which is on the next line where the left one is long."""
    if len(line) > 30 and line[29] == " ":
        alone = "  " not in line.strip() and next_line.startswith(" " * 20)
        if not alone:
            return line[:30].strip(), line[30:].strip()
    return line.strip(), ""


def option(left, text):
    match = ALL_OPTION.match(left)
    if not match:
        name, _, value = left.partition(" ")
        return Option([name], value.strip(), text)
    return Option(match.group(0).split(","), left[match.end():].strip(), text)


def parse(text, path):
    command = Command(list(path))
    lines = text.split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith("Usage:"))
    command.about = " ".join(line.strip() for line in lines[:at] if line.strip())
    command.usage = lines[at][len("Usage:"):].strip()
    kind, entries, subcommands = None, [], []
    at += 1
    while at < len(lines):
        line = lines[at]
        heading = HEADING.match(line)
        if heading:
            title = heading.group(1)
            if title in ("Subcommands", "Positionals") or title.endswith("Options") or title.startswith("[Option Group"):
                kind = title
            else:
                break
        elif not line.strip():
            if kind is not None and at + 1 < len(lines) and lines[at + 1].strip() and not HEADING.match(lines[at + 1]) \
                    and not lines[at + 1].startswith("  "):
                break
        elif kind is None or not line.startswith("  "):
            break
        elif line.startswith(" " * 20) and entries:
            entries[-1][2] = (entries[-1][2] + " " + line.strip()).strip()
        else:
            entries.append([kind, *entry(line, lines[at + 1] if at + 1 < len(lines) else "")])
        at += 1
    for kind, left, said in entries:
        if kind == "Subcommands":
            subcommands.append((left.split()[0], said))
        elif kind == "Positionals":
            command.positionals.append(option(left, said))
        else:
            command.options.append(option(left, said))
    command.footer = "\n".join(lines[at:]).strip("\n")
    return command, subcommands


def read(program, name, path=None):
    """The tree of commands of a program; `name` is what it is called in the manual."""
    path = path or [name]
    command, subcommands = parse(says(program, path[1:]), path)
    for subcommand, about in subcommands:
        below = read(program, name, path + [subcommand])
        below.about = below.about or about
        command.commands.append(below)
    return command
