"""Plots as SVG, written by hand: bars for medians, whiskers from the first to the third quartile."""

import math
import os
from xml.sax.saxutils import escape

COLOURS = ["#1b6ca8", "#7fb2d9", "#c2571a", "#6b8e23", "#8a6bb1", "#b08d3c", "#4f7f7f", "#a34a63", "#808080"]
FONT = "font-family=\"system-ui, 'DejaVu Sans', Helvetica, sans-serif\""
BAR, GAP, GROUP_GAP, LEFT, RIGHT, TOP = 20, 4, 26, 190, 90, 58

# Which figures get a plot: key, axis title, logarithmic.
PLOTTED = {
    "cpu_ns": ("CPU of the server process, ns a delivered packet", False),
    "p99_us": ("latency p99, us", True),
    "capacity": ("thousand packets/s at no more than 0.1 % loss", False),
    "cpu_us": ("CPU of the server process, us an allocation and channel", False),
    "rss_kb": ("memory of the server process, KB an allocation", False),
    "allocate_p99_ms": ("Allocate during the flood, p99, ms", True),
}


def nice_step(largest):
    """A step that makes four to eight round ticks."""
    if largest <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(largest / 4))
    for factor in (1, 2, 5, 10):
        if largest / (power * factor) <= 8:
            return power * factor
    return power * 10


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


class Axis:
    def __init__(self, largest, smallest, logarithmic, width):
        self.logarithmic, self.width = logarithmic, width
        if logarithmic:
            self.low = math.floor(math.log10(max(smallest, 1e-3)))
            self.high = max(math.ceil(math.log10(max(largest, 1e-3))), self.low + 1)
            self.ticks = [10 ** power for power in range(self.low, self.high + 1)]
        else:
            step = nice_step(largest)
            count = max(1, math.ceil(largest / step))
            self.top = count * step
            self.ticks = [i * step for i in range(count + 1)]

    def at(self, value):
        if not self.logarithmic:
            return self.width * value / self.top
        return self.width * (math.log10(max(value, 10 ** self.low)) - self.low) / (self.high - self.low)


def bars(title, subtitle, axis_title, groups, logarithmic, colour_of):
    """groups: [(cell title, [(server, Spread)])]. The SVG's text."""
    width = 560
    values = [s for _, rows in groups for _, s in rows]
    axis = Axis(max(s.high for s in values), min(s.low for s in values), logarithmic, width)
    height = sum(len(rows) * (BAR + GAP) + GROUP_GAP for _, rows in groups)
    total_width, total_height = LEFT + width + RIGHT, TOP + height + 52
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width} {total_height}" width="{total_width}" height="{total_height}" {FONT}>',
           f'<rect width="{total_width}" height="{total_height}" fill="#ffffff"/>',
           f'<text x="16" y="26" font-size="17" font-weight="600" fill="#1a1a1a">{escape(title)}</text>',
           f'<text x="16" y="45" font-size="12" fill="#555555">{escape(subtitle)}</text>']
    for tick in axis.ticks:
        x = LEFT + axis.at(tick)
        out.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{TOP + height}" stroke="#dddddd" stroke-width="1"/>')
        out.append(f'<text x="{x:.1f}" y="{TOP + height + 16}" font-size="11" fill="#555555" text-anchor="middle">{number(tick)}</text>')
    y = TOP
    for cell, rows in groups:
        y += 16
        out.append(f'<text x="16" y="{y}" font-size="13" font-weight="600" fill="#1a1a1a">{escape(cell)}</text>')
        y += GROUP_GAP - 16 - 4
        for server, s in rows:
            length, middle = axis.at(s.median), y + BAR / 2
            low, high = LEFT + axis.at(s.low), LEFT + axis.at(s.high)
            out.append(f'<text x="{LEFT - 8}" y="{middle + 4}" font-size="12" fill="#333333" text-anchor="end">{escape(server)}</text>')
            out.append(f'<rect x="{LEFT}" y="{y}" width="{max(length, 1):.1f}" height="{BAR}" rx="2" fill="{colour_of(server)}"/>')
            out.append(f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 5}v10M{high:.1f} {middle - 5}v10" stroke="#1a1a1a" '
                       f'stroke-width="1.4" fill="none"/>')
            out.append(f'<text x="{max(LEFT + length, high) + 8:.1f}" y="{middle + 4}" font-size="12" fill="#1a1a1a">{number(s.median)}</text>')
            y += BAR + GAP
        y += 4
    out.append(f'<line x1="{LEFT}" y1="{TOP}" x2="{LEFT}" y2="{TOP + height}" stroke="#888888" stroke-width="1"/>')
    out.append(f'<text x="{LEFT + width / 2}" y="{TOP + height + 38}" font-size="12" fill="#333333" text-anchor="middle">{escape(axis_title)}'
               f'{" (logarithmic)" if logarithmic else ""}</text>')
    out.append("</svg>\n")
    return "\n".join(out)


def write_all(result, cells, folder):
    """A file for each figure that is plotted. Their names."""
    servers = result["servers"]

    def colour_of(server):
        return COLOURS[servers.index(server) % len(COLOURS)]

    written = []
    for key, (axis_title, logarithmic) in PLOTTED.items():
        groups = []
        for title, columns, rows in cells:
            shown = [(name, spreads[key]) for name, _, spreads in rows if key in spreads and not (name == "direct" and key == "cpu_ns")]
            if shown:
                groups.append((title, shown))
        if not groups:
            continue
        name = f"{result['name']}-{key.replace('_', '-')}.svg"
        rounds = max(len(r) for r in result["rounds"].values())
        subtitle = f"{result['summary']}; medians and quartiles of {rounds} alternated rounds"
        with open(os.path.join(folder, name), "w") as out:
            out.write(bars(result["name"], subtitle, axis_title, groups, logarithmic, colour_of))
        written.append(name)
    return written
