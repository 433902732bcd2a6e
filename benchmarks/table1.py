"""Table 1 of "Attention Is All You Need" (Vaswani et al., 2017), measured: time and memory of one layer of each kind.

    python benchmarks/table1.py --plot docs/table1.svg

Each layer turns n vectors of width d into n others. Its time and memory are measured at growing n, its time at growing
d as well, and the exponents fitted over the upper sizes are printed beside those that the paper expects.

The paper's O(n² d) for self-attention counts the products of queries, keys and values alone, so those are measured here
by themselves. The four projections around them, O(n d²) as in any layer with a matrix, have a row of their own.

Sizes: n tokens, d their width, r tokens seen in restricted self-attention, k width of the kernel of a convolution.
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from statistics import linear_regression
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nmt.errors import NmtError
from nmt.files import whole_file
from nmt.model.attention import Attention
from nmt.model.streams import Cut
from nmt.model.views import self_view
from nmt.recipe import Model

KERNEL = 3


class Sizes(NamedTuple):
    """What is measured."""

    lengths: Sequence[int]
    """n, at width `width`."""
    width: int
    widths: Sequence[int]
    """d, at length `length`."""
    length: int
    window: int
    """r."""
    fitted: int
    """How many of the upper sizes the exponents are fitted over."""


FULL = Sizes([2**i for i in range(6, 14)], 64, [2**i for i in range(5, 11)], 256, 64, 3)
QUICK = Sizes([2**i for i in range(5, 12, 2)], 8, [2**i for i in range(4, 7)], 16, 16, 2)


class Layer(NamedTuple):
    """A layer with an input."""

    run: Callable[[], Tensor]
    """Applies it once."""
    parameters: Sequence[Tensor] = ()


class Kind(NamedTuple):
    """A row of the table."""

    name: str
    complexity: str
    sequential: str
    path: str
    in_n: int
    """The exponent of n in the complexity, which is that of the memory too."""
    in_d: int
    make: Callable[[int, int, int], Layer]
    """The layer for n, d and r, ready to run."""


def _input(*shape: int) -> Tensor:
    return torch.randn(*shape, requires_grad=True)


def _attention(n: int, d: int, window: int) -> Layer:
    """Attention proper by our own `Attention`, one head: softmax(q kᵀ / √d) v, without its projections."""
    config = Model(d_model=d, heads=1, window=window)
    core, view = Attention(config).core, self_view(config, Cut.of(np.array([n])))
    q, k, v = (_input(n, 1, d) for _ in range(3))
    return Layer(lambda: view(core, q, k, v))


def _projections(n: int, d: int) -> Layer:
    """The projections of the same: to queries, keys and values, and back."""
    config = Model(d_model=d, heads=1)
    attention, view, x = Attention(config), self_view(config, Cut.of(np.array([n]))), _input(n, d)

    def run() -> Tensor:
        q, k, v = attention.project(x, view)
        out: Tensor = attention.output((q + k + v).flatten(1))
        return out

    return Layer(run, list(attention.parameters()))


def _recurrent(n: int, d: int) -> Layer:
    layer, x = nn.GRU(d, d), _input(n, 1, d)
    return Layer(lambda: layer(x)[0], list(layer.parameters()))


def _convolutional(n: int, d: int) -> Layer:
    layer, x = nn.Conv1d(d, d, KERNEL, padding=KERNEL // 2), _input(1, d, n)
    return Layer(lambda: layer(x), list(layer.parameters()))


KINDS = (
    Kind("self-attention", "O(n²·d)", "O(1)", "O(1)", 2, 1, lambda n, d, r: _attention(n, d, 0)),
    Kind("recurrent (GRU)", "O(n·d²)", "O(n)", "O(n)", 1, 2, lambda n, d, r: _recurrent(n, d)),
    Kind("convolutional", "O(k·n·d²)", "O(1)", "O(log_k n)", 1, 2, lambda n, d, r: _convolutional(n, d)),
    Kind("self-attention (restricted)", "O(r·n·d)", "O(1)", "O(n/r)", 1, 1, _attention),
    Kind("projections of self-attention", "O(n·d²)", "O(1)", "–", 1, 2, lambda n, d, r: _projections(n, d)),
)


def forward(layer: Layer) -> None:
    """The layer as in translating."""
    with torch.no_grad():
        layer.run()


def both(layer: Layer) -> None:
    """The layer as in training: forward and backward."""
    out = layer.run()
    torch.autograd.backward(out, torch.ones_like(out))


def fastest(step: Callable[[], None], repeats: int) -> float:
    """The least CPU seconds that a step takes: unlike the clock, they do not count what else the machine does."""
    step()
    times: list[float] = []
    while len(times) < repeats or (sum(times) < 0.1 and len(times) < 1000):
        begin = time.process_time()
        step()
        times.append(time.process_time() - begin)
    return min(times)


def peak(step: Callable[[], None]) -> int:
    """The most bytes that a step holds at once of what it allocates itself, as torch's allocator counts them.

    Exact and the same each time. What oneDNN allocates for itself inside a convolution is not seen.
    """
    from torch.autograd.profiler import profile

    with profile(profile_memory=True) as profiled:
        step()
    events = [event for event in profiled.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def kept(layer: Layer) -> int:
    """The bytes of activations that forward leaves for backward, the input with them, parameters not."""
    storages: dict[int, int] = {}

    def note(saved: Tensor) -> Tensor:
        storages[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        out = layer.run()  # held until all is counted, or a new storage might take the place of one that was let go
    for parameter in layer.parameters:
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    total = sum(storages.values())
    del out
    return total


def measured(kind: Kind, n: int, d: int, window: int, repeats: int, memory: bool) -> dict[str, float]:
    """Seconds, and if asked bytes, of one layer."""
    torch.manual_seed(1)
    layer = kind.make(n, d, window)
    forward(layer)  # makes the masks, which in a model all layers share
    found: dict[str, float] = {}
    if memory:
        found["kept_bytes"] = kept(layer)
        found["forward_bytes"] = peak(lambda: forward(layer))
        found["both_bytes"] = peak(lambda: both(layer))  # the gradients among them, for there are none yet
    found["forward_seconds"] = float(f"{fastest(lambda: forward(layer), repeats):.4g}")
    found["both_seconds"] = float(f"{fastest(lambda: both(layer), repeats):.4g}")
    return found


def exponent(sizes: Sequence[int], values: Iterable[float], fitted: int) -> float:
    """The slope of the values over the upper sizes, both as logarithms."""
    logs = [[math.log(x) for x in list(xs)[-fitted:]] for xs in (sizes, values)]
    return linear_regression(*logs).slope


def study(kind: Kind, sizes: Sizes, repeats: int) -> dict[str, Any]:
    """All figures of one kind of layer."""
    by_n, by_d = [], []
    for n in sizes.lengths:
        _tell(f"{kind.name}: n = {n}, d = {sizes.width}")
        by_n.append(measured(kind, n, sizes.width, sizes.window, repeats, memory=True))
    for d in sizes.widths:
        _tell(f"{kind.name}: n = {sizes.length}, d = {d}")
        by_d.append(measured(kind, sizes.length, d, sizes.window, repeats, memory=False))
    figures: dict[str, Any] = {
        "layer": kind.name,
        "complexity": kind.complexity,
        "sequential": kind.sequential,
        "path": kind.path,
        "expected": {"n": kind.in_n, "d": kind.in_d, "memory_n": kind.in_n},
        "by_n": {name: [one[name] for one in by_n] for name in by_n[0]},
        "by_d": {name: [one[name] for one in by_d] for name in by_d[0]},
    }
    along = (("n", sizes.lengths), ("d", sizes.widths))
    figures["exponents"] = {
        f"{name}_{axis}": round(exponent(xs, values, sizes.fitted), 3)
        for axis, xs in along
        for name, values in figures[f"by_{axis}"].items()
    }
    return figures


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def lines(found: dict[str, Any]) -> list[str]:
    """The figures as text: the exponents, then times and memory at each n."""
    sizes, layers = found["sizes"], found["layers"]
    lengths, widths = sizes["lengths"], sizes["widths"]
    times = [[_digits(1e3 * value) for value in layer["by_n"]["both_seconds"]] for layer in layers]
    bytes_ = [[_digits(value / 2**20) for value in layer["by_n"]["both_bytes"]] for layer in layers]
    names = [layer["layer"] for layer in layers]
    heads = [f"n = {n}" for n in lengths]
    return [
        *_aligned([*_HEADS, *map(_exponents, layers)], 4),
        "",
        f"Exponents over the upper {sizes['fitted']} of n = {lengths[0]} … {lengths[-1]} with d = {sizes['width']},",
        f"and of d = {widths[0]} … {widths[-1]} with n = {sizes['length']}; r = {sizes['window']}, k = {KERNEL}.",
        "fwd: forward alone; both: forward and backward; kept: activations that backward needs.",
        "",
        *_aligned([["ms, both", *heads], *([name, *row] for name, row in zip(names, times, strict=True))], 1),
        "",
        *_aligned([["MiB, both", *heads], *([name, *row] for name, row in zip(names, bytes_, strict=True))], 1),
        "",
        f"{found['machine']}, one thread, CPU time; torch {found['torch']}; {found['date']}.",
    ]


_HEADS = [
    [
        "layer",
        "complexity",
        "sequential",
        "longest path",
        "time, n",
        "",
        "",
        "time, d",
        "",
        "",
        "memory, n",
        "",
        "",
        "",
    ],
    [*[""] * 4, "paper", "fwd", "both", "paper", "fwd", "both", "expected", "fwd", "both", "kept"],
]


def _exponents(layer: dict[str, Any]) -> list[str]:
    expected, found = layer["expected"], {name: f"{value:.2f}" for name, value in layer["exponents"].items()}
    return [
        *(layer[name] for name in ("layer", "complexity", "sequential", "path")),
        *(str(expected["n"]), found["forward_seconds_n"], found["both_seconds_n"]),
        *(str(expected["d"]), found["forward_seconds_d"], found["both_seconds_d"]),
        *(str(expected["memory_n"]), found["forward_bytes_n"], found["both_bytes_n"], found["kept_bytes_n"]),
    ]


def _digits(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Rows of cells as lines, the first columns set left and the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:<{w}}" if i < left else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def processor() -> str:
    """The name of the processor, as far as the system tells."""
    try:
        told = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    except OSError:
        told = []
    return told[0].partition(": ")[2] if told else platform.processor() or platform.machine()


def report(sizes: Sizes, repeats: int) -> dict[str, Any]:
    """All figures, and what they were measured on."""
    layers = [study(kind, sizes, repeats) for kind in KINDS]
    _tell("")
    return {
        "sizes": {name: list(value) if isinstance(value, list) else value for name, value in sizes._asdict().items()},
        "layers": layers,
        "machine": processor(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


# The plot

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#56B4E9", "#999999")  # Okabe and Ito 2008: told apart by the colour-blind
MARKERS = "osD^v"
PANELS = (
    ("n", "both_seconds", 1e3, "tokens $n$", "CPU time, forward and backward (ms)"),
    ("n", "both_bytes", 2**-20, "tokens $n$", "peak memory, forward and backward (MiB)"),
    ("d", "both_seconds", 1e3, "width $d$", "CPU time, forward and backward (ms)"),
)
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "mathtext.fontset": "dejavusans",
    "svg.fonttype": "path",  # looks the same wherever it is shown
    "svg.hashsalt": "nmt",
}


def check_plot(path: Path) -> None:
    """NmtError where nothing could be drawn there, before minutes are spent on measuring."""
    if find_spec("matplotlib") is None:
        raise NmtError("--plot needs matplotlib: pip install 'nmt[figures]'")
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise NmtError(f"{path}: what to draw is told by the ending: name it .svg, .png or .pdf")
    if not path.parent.is_dir():
        raise NmtError(f"{path}: there is no such folder: make it first")


def plot(found: dict[str, Any], path: Path) -> None:
    """Draws the figures; the ending of the path says in which format."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    form = path.suffix.removeprefix(".")
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(1, len(PANELS), figsize=(11, 3.9))
        for axis, panel in zip(axes, PANELS, strict=True):
            _panel(axis, found, *panel)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False, fontsize=8)
        figure.tight_layout(rect=(0, 0.08, 1, 1), w_pad=2.5)
        drawn = BytesIO()
        figure.savefig(drawn, format=form, dpi=160, metadata={"Date": None} if form == "svg" else None)
        pyplot.close(figure)
    with whole_file(path) as file:
        file.write(drawn.getvalue())


def _panel(axis: Any, found: dict[str, Any], along: str, what: str, unit: float, x: str, y: str) -> None:
    """One panel: points, the fitted slopes dashed through them, and the exponents at their ends."""
    sizes = found["sizes"]
    xs = sizes["lengths" if along == "n" else "widths"]
    fixed = f"$d$ = {sizes['width']}" if along == "n" else f"$n$ = {sizes['length']}"
    axis.set(xscale="log", yscale="log", ylabel=y, xlabel=f"{x}   ({fixed})")
    ends = []
    for layer, colour, marker in zip(found["layers"], COLOURS, MARKERS, strict=True):
        ys = [value * unit for value in layer[f"by_{along}"][what]]
        axis.plot(xs, ys, color=colour, marker=marker, markersize=3.5, linewidth=1.2, label=layer["layer"])
        slope = layer["exponents"][f"{what}_{along}"]
        reach = [xs[-sizes["fitted"]] / 2, xs[-1] * 1.15]
        middle = math.prod(ys[-sizes["fitted"] :]) ** (1 / sizes["fitted"])
        centre = math.prod(xs[-sizes["fitted"] :]) ** (1 / sizes["fitted"])
        axis.plot(reach, [middle * (at / centre) ** slope for at in reach], color=colour, linewidth=0.7, linestyle="--")
        ends.append((ys[-1], f"${along}^{{{slope:.2f}}}$", colour))
    _ticks(axis, xs)
    _labels(axis, xs[-1] * 1.3, ends)


def _ticks(axis: Any, xs: Sequence[int]) -> None:
    shown = xs[:: -1 - len(xs) // 7]
    axis.minorticks_off()
    axis.set_xticks(shown, [f"{size:,}" for size in shown])
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axis.grid(color="#e6e6e6", linewidth=0.5)
    axis.set_axisbelow(True)
    axis.set_xlim(xs[0] / 1.3, xs[-1] * 2.6)


def _labels(axis: Any, x: float, ends: list[tuple[float, str, str]]) -> None:
    """Text at the ends of the lines, moved apart where two would lie on each other."""
    low, high = (math.log(limit) for limit in axis.get_ylim())
    apart = 0.06 * (high - low)
    ends = sorted(ends)
    places = [math.log(y) for y, _, _ in ends]
    for _ in range(100):
        for i in range(len(places) - 1):
            lacking = max(0.0, apart - (places[i + 1] - places[i]))
            places[i], places[i + 1] = places[i] - lacking / 2, places[i + 1] + lacking / 2
    for place, (_, text, colour) in zip(places, ends, strict=True):
        axis.text(x, math.exp(place), text, color=colour, va="center", fontsize=8)


def main() -> int:
    """The command line; 2 for what the user can mend."""
    parser = argparse.ArgumentParser(description="Table 1 of “Attention Is All You Need”, measured.")
    parser.add_argument("--quick", action="store_true", help="small sizes, in seconds; the exponents mean less")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures, as .svg, .png or .pdf")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="the fastest of at least N runs counts")
    options = parser.parse_args()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler tells of its own start and end otherwise
    if options.plot:
        check_plot(options.plot)
    torch.set_num_threads(1)  # so that CPU seconds are those that pass where nothing else runs
    found = report(QUICK if options.quick else FULL, options.repeats)
    print(*lines(found), "", sep="\n")
    print(json.dumps(found, ensure_ascii=False))
    if options.plot:
        plot(found, options.plot)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NmtError as error:
        print(f"table1: error: {error}", file=sys.stderr)
        sys.exit(2)
