"""Small plots as SVG in a page: histograms, a cloud of points, curves. Their colours are those of the page."""

import html
import math
from collections.abc import Iterable, Sequence

import numpy as np

_W, _H = 400, 150  # of the plot; the labels lie around it
_LEFT, _BELOW = 44, 34


def histogram(counts: Sequence[int], width: int, kind: str, what: str) -> str:
    """Lines by their length: bars for up to `width` units, up to twice that and so on, and for all the rest."""
    most, bar = max(counts, default=0) or 1, _W / max(1, len(counts))
    shapes = []
    for number, count in enumerate(counts):
        high = _H * count / most
        last = number == len(counts) - 1
        named = f"over {number * width}" if last else f"{number * width + 1} to {(number + 1) * width}"
        named = f"{width and (number + 1)}" if width == 1 and not last else named
        tip = f"<title>{named} {what}: {count:,} lines</title>"
        shapes.append(
            f'<rect class="{kind}" x="{number * bar + 0.5:.1f}" y="{_H - high:.1f}" width="{bar - 1:.1f}" '
            f'height="{high:.1f}">{tip}</rect>'
        )
    every = max(1, (len(counts) - 1) // 4)
    ticks = [(at * bar, f"{at * width}") for at in range(0, len(counts) - 1, every)]
    ticks.append((_W - bar / 2, "more"))
    return _frame(shapes, ticks, [(0, f"{most:,}")], f"{what} a line", f"a histogram: {what} a line")


def cloud(points: np.ndarray, ratio: float, across: str, down: str) -> str:
    """Pairs by the lengths of their sides, both axes logarithmic, with lines where one is `ratio` times the other."""
    top = math.log10(max(10, int(points.max(initial=1))))

    def at(x: float, y: float) -> tuple[float, float]:
        return _W * math.log10(max(1, x)) / top, _H - _H * math.log10(max(1, y)) / top

    dots = (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in (at(a, b) for a, b in points.tolist()))
    most = 10**top
    lines = []
    if ratio < most:
        for begin, end in ((at(ratio, 1), at(most, most / ratio)), (at(1, ratio), at(most / ratio, most))):
            lines.append(_line("mark", *begin, *end))
    marks = [10**power for power in range(int(top) + 1)]
    ticks = [(at(mark, 1)[0], f"{mark:,}") for mark in marks]
    return _frame(
        [*lines, f'<g class="dots">{"".join(dots)}</g>'],
        ticks,
        [(at(1, mark)[1], f"{mark:,}") for mark in marks],
        f"{across} pieces (up: {down} pieces)",
        f"pairs by their lengths in pieces, {across} across, {down} up",
    )


def curves(named: Iterable[tuple[str, str, Sequence[int], int]], levels: Sequence[int]) -> str:
    """Counts in falling order, both axes logarithmic: (class, name, counts at even steps of the logarithm, entries)."""
    rows = [row for row in named if row[2]]
    right = math.log10(max([10, *(entries for *_, entries in rows)]))
    top = math.log10(max([10, *(counts[0] for _, _, counts, _ in rows)]))
    shapes = []
    for kind, name, counts, entries in rows:
        places = np.unique(np.geomspace(1, max(1, entries), 200).astype(int))
        points = (
            f"{_W * math.log10(place) / right:.1f},{_H - _H * math.log10(count) / top:.1f}"
            for place, count in zip(places.tolist(), counts, strict=True)
            if count
        )
        shapes.append(f'<polyline class="curve {kind}" points="{" ".join(points)}"><title>{name}</title></polyline>')
    heights = [(_H - _H * math.log10(level) / top, level) for level in levels if level <= 10**top]
    shapes += [_line("mark", 0, y, _W, y) for y, _ in heights]
    ticks = [(_W * power / right, f"{10**power:,}") for power in range(int(right) + 1)]
    ys = [(y, f"{level:,}") for y, level in heights] + [(0.0, f"{round(10**top):,}")]
    return _frame(shapes, ticks, ys, "entries, the commonest first (up: times seen)", "how often entries are seen")


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _frame(
    shapes: Iterable[str],
    across: Iterable[tuple[float, str]],
    up: Iterable[tuple[float, str]],
    below: str,
    what: str,
) -> str:
    """A plot with its axes; `what` is read out to those who do not see it."""
    box = f"{-_LEFT} -8 {_W + _LEFT + 12} {_H + _BELOW + 10}"
    texts = [f'<text x="{x:.1f}" y="{_H + 14}" text-anchor="middle">{label}</text>' for x, label in across]
    texts += [f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{label}</text>' for y, label in up]
    texts.append(f'<text x="{_W / 2}" y="{_H + 30}" text-anchor="middle">{html.escape(below)}</text>')
    axes = _line("axis", 0, _H, _W, _H) + _line("axis", 0, 0, 0, _H)
    named = html.escape(what, quote=True)
    return f'<svg viewBox="{box}" role="img" aria-label="{named}">{axes}{"".join(shapes)}{"".join(texts)}</svg>'
