"""Completions of a command tree: bash without the bash-completion package, zsh with its _arguments."""
import re


def functions(tree):
    return "_" + re.sub(r"\W", "_", tree.path[0])


def bash(tree):
    function = functions(tree)
    words, values = [], []
    for command in tree.walk():
        key = " ".join(command.path[1:])
        names = [name for option in command.options for name in option.names if name.startswith("--") or len(option.names) == 1]
        below = [below.path[-1] for below in command.commands]
        words.append(f"    '{key}')\n      options='{' '.join(names)}'\n      commands='{' '.join(below)}'\n      ;;")
        for option in command.options:
            if not option.takes_value:
                continue
            what = "file" if option.is_file else "words " + " ".join(option.choices) if option.choices else "anything"
            values += [f"    '{key} {name}') value='{what}' ;;" for name in option.names]
    known = [f"      ' {' '.join(command.path[1:])}'" for command in list(tree.walk())[1:]]
    walk = ""
    if known:
        walk = "      " + " | ".join(k.strip() for k in known) + ") path=\"$path $word\" ;;\n"
    return f"""# bash completion of {tree.path[0]}, made from its --help.
{function}() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
  local path='' word options='' commands='' value='' at
  for ((at = 1; at < COMP_CWORD; at++)); do
    word=${{COMP_WORDS[at]}}
    case "$path $word" in
{walk}      *) ;;
    esac
  done
  path=${{path# }}
  # What follows "=" is the value of the flag before it: bash makes words of all three.
  if [ "$current" = '=' ]; then
    current=''
  elif [ "$previous" = '=' ] && ((COMP_CWORD >= 2)); then
    previous=${{COMP_WORDS[COMP_CWORD - 2]}}
  fi
  case "$path $previous" in
{chr(10).join(values) if values else "    *) ;;"}
  esac
  COMPREPLY=()
  case $value in
    file)
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
      return
      ;;
    words*)
      mapfile -t COMPREPLY < <(compgen -W "${{value#words}}" -- "$current")
      return
      ;;
    anything) return ;;
  esac
  case $path in
{chr(10).join(words)}
  esac
  if [[ $current == -* || -z $commands ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
  else
    mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$current")
  fi
}}
complete -o default -F {function} {tree.path[0]}
"""


def zsh_text(text):
    text = text.split("; ")[0].split(": ")[0] if len(text) > 70 else text
    return re.sub(r"([\[\]:\\])", r"\\\1", text).replace("'", "'\\''")


def zsh_value(option):
    if option.choices:
        return f":{option.placeholder or 'value'}:({' '.join(option.choices)})"
    return f":{option.placeholder or 'value'}:" + ("_files" if option.is_file else " ")


def zsh_options(command):
    specs = []
    for option in command.options:
        others = f"({' '.join(option.names)})" if len(option.names) > 1 else ""
        star = "*" if "..." in option.value or "may be repeated" in option.text else ""
        for name in option.names:
            equals = "=" if option.takes_value and name.startswith("--") else ""
            specs.append(f"'{star or others}{name}{equals}[{zsh_text(option.text)}]" + (zsh_value(option) if option.takes_value else "") + "'")
    return specs


def zsh_function(command, root):
    name = root + "".join("_" + re.sub(r"\W", "_", word) for word in command.path[1:])
    specs = zsh_options(command)
    if command.commands:
        lines = [f"{name}() {{", "  local context state state_descr line ret=1", "  typeset -A opt_args", "  _arguments -C \\"]
        lines += [f"    {spec} \\" for spec in specs]
        lines += ["    '1: :->command' '*:: :->rest' && ret=0", "  case $state in", "    command)", "      local -a commands", "      commands=("]
        lines += [f"        '{below.path[-1]}:{zsh_text(below.about)}'" for below in command.commands]
        lines += ["      )", "      _describe -t commands command commands && ret=0", "      ;;", "    rest)", "      case $line[1] in"]
        for below in command.commands:
            lines.append(f"        {below.path[-1]}) {root}{''.join('_' + re.sub(chr(92) + 'W', '_', word) for word in below.path[1:])} && ret=0 ;;")
        lines += ["      esac", "      ;;", "  esac", "  return ret", "}"]
    else:
        lines = [f"{name}() {{", "  _arguments \\"]
        lines += [f"    {spec} \\" for spec in specs]
        lines += ["    '*: :_files'" if command.positionals else "    && return 0", "}"]
    below = []
    for child in command.commands:
        below += zsh_function(child, root)
    return below + lines


def zsh(tree):
    root = functions(tree)
    return "\n".join([f"#compdef {tree.path[0]}", f"# zsh completion of {tree.path[0]}, made from its --help.",
                      *zsh_function(tree, root), f'{root} "$@"', ""])
