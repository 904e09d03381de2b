"""The table on the terminal, results.json and results.md."""

import json
import os

from . import figures, plots


def cells_of(profile_result, reference):
    """(cell title, columns, rows); a row is (server, ratio over the reference or None, spreads by key)."""
    for title, rounds in profile_result["rounds"].items():
        if not rounds:
            continue
        names = [name for name in profile_result["servers"] if all(name in results for results in rounds)]
        columns = figures.columns_of(rounds[0][names[0]])
        added = figures.ADDED if columns is figures.TRAFFIC and "direct" in names else []
        rows = []
        for name in names:
            spreads = {key: figures.spread(rounds, name, value) for key, _, value, _ in columns}
            for key, _, value, _ in added:
                spreads[key] = figures.Spread([value(results[name]) - value(results["direct"]) for results in rounds])
            ratio = None
            if reference in names and name != reference and name != "direct":
                ratio = figures.ratio(rounds, name, reference, columns[0][2])
            rows.append((name, ratio, spreads))
        yield title, columns + added, rows


def ratio_text(ratio):
    return f"{ratio.median:.2f} ({ratio.values[0]:.2f}-{ratio.values[-1]:.2f})" if ratio else ""


def spread_text(spread, form):
    return f"{form.format(spread.median)}"


def table_of(profile_result, reference):
    """Head and rows. Cells of different columns make tables of their own."""
    tables = []
    for title, columns, rows in cells_of(profile_result, reference):
        head = ["", "server", columns[0][1], "quartiles", f"of {reference}'s"] + [c[1] for c in columns[1:]]
        lines = []
        for number, (name, ratio, spreads) in enumerate(rows):
            first = spreads[columns[0][0]]
            form = columns[0][3]
            lines.append([title if number == 0 else "", name, form.format(first.median), f"{form.format(first.low)}-{form.format(first.high)}",
                          ratio_text(ratio)] + [spread_text(spreads[c[0]], c[3]) for c in columns[1:]])
        if tables and tables[-1][0] == head:
            tables[-1][1].extend(lines)
        else:
            tables.append((head, lines))
    return tables


def print_table(head, rows):
    rows = [head] + rows
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for number, row in enumerate(rows):
        print("  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))).rstrip())
        if number == 0:
            print("  ".join("-" * w for w in widths))


def print_profile(profile_result, reference):
    print(f"\n{profile_result['name']}: {profile_result['summary']}")
    for head, rows in table_of(profile_result, reference):
        print_table(head, rows)
    print(flush=True)


def machine_lines(machine):
    return [f"{machine['date']}, Linux {machine['kernel']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory']}, "
            f"load average {machine['load_average'][0]:.1f}, {machine['descriptors']} descriptors a process, {machine['network']}",
            f"server on core {machine['server_core']}, load on core {machine['load_core']}; "
            + ", ".join(f"{name}: {version}" for name, version in machine["versions"].items() if version)]


def markdown(run, reference):
    out = [f"# {run['title']}", ""]
    out += [line + "  " for line in machine_lines(run["machine"])]
    out += [f"`{run['machine']['command']}`, {run['rounds']} alternated rounds; medians, quartiles of the first figure, and its ratio over "
            f"{reference} as the median of the rounds with the smallest and the largest", ""]
    if run["checks"]:
        out += ["| | what | measured |", "|---|---|---|"]
        out += [f"| {'met' if c['met'] else '**not met**'} | {c['what']} | {c['measured']} |" for c in run["checks"]]
        out.append("")
    for result in run["profiles"]:
        out += [f"## {result['name']}", result["summary"], ""]
        if "error" in result:
            out += ["Not finished: " + result["error"].splitlines()[0], ""]
        for head, rows in table_of(result, reference):
            out.append("| " + " | ".join(head) + " |")
            out.append("|---|---|" + "---:|" * (len(head) - 2))
            out += ["| " + " | ".join(row) + " |" for row in rows]
            out.append("")
        for plot in result.get("plots", []):
            out += [f"![{result['name']}]({plot})", ""]
    return "\n".join(out)


def summary_of(result, reference):
    return {title: {name: {**{key: s.json() for key, s in spreads.items()}, **({"ratio": ratio.json()} if ratio else {})}
                    for name, ratio, spreads in rows}
            for title, _, rows in cells_of(result, reference)}


def write(path, text):
    with open(path + ".new", "w") as out:
        out.write(text)
    os.replace(path + ".new", path)  # a run that is cut off leaves whole files


def save(run, reference, folder):
    os.makedirs(folder, exist_ok=True)
    for result in run["profiles"]:
        if not any(result["rounds"].values()):
            continue
        result["plots"] = plots.write_all(result, list(cells_of(result, reference)), folder)
        result["summary_of_rounds"] = summary_of(result, reference)
    write(os.path.join(folder, "results.json"), json.dumps(run, indent=1))
    write(os.path.join(folder, "results.md"), markdown(run, reference))
