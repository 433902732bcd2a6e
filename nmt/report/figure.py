"""Attention as a picture for a paper: a heat map for each head, by matplotlib."""

import io
import logging
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nmt.errors import NmtError
from nmt.report.attention import AXES, Attention, Choice, Token

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 4  # pictures beside each other, where not all layers are drawn
VECTORS = 50_000  # cells, above which they are drawn as pixels even in .svg and .pdf, or the file would be huge
LACKING = "□"
TRIM: dict[str, Any] = {"dpi": 200, "bbox_inches": "tight", "pad_inches": 0.04}
METADATA: dict[str, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def require() -> None:
    """Raises `NmtError` where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise NmtError(
            "pictures are drawn by matplotlib, which is not installed: pip install nmt[figures], or write .html"
        ) from None


def draw(attention: Attention, choice: Choice, form: str, warn: Callable[[str], None]) -> bytes:
    """The heat maps of what is chosen, as a file of the form "png", "svg" or "pdf"; the same each time.

    All layers if none is chosen, all heads if none is. `warn` is told of characters that no font here has.
    """
    import matplotlib

    rows, columns = (attention.tokens[name] for name in AXES[choice.kind])
    families, lacking = _fonts({char for token in (*rows, *columns) for char in _shown(token)})
    if lacking:
        warn(
            f"no font on this machine has {' '.join(sorted(lacking))}: drawn as {LACKING}; install Noto fonts for them"
        )
    signs = str.maketrans({char: "" if unicodedata.category(char)[0] in "MC" else LACKING for char in lacking})
    labels = [[_shown(token).translate(signs) for token in side] for side in (rows, columns)]
    style: dict[Any, Any] = {"font.family": families, "svg.hashsalt": "nmt", "pdf.fonttype": 42}
    style["text.parse_math"] = False  # a dollar is a dollar
    file = io.BytesIO()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs, which we have told of ourselves
        _figure(attention, choice, labels).savefig(file, format=form, metadata=METADATA[form], **TRIM)
    return file.getvalue()


def _figure(attention: Attention, choice: Choice, labels: Sequence[Sequence[str]]) -> "Figure":
    from matplotlib.figure import Figure

    weights = attention.weights[choice.kind]
    layers = range(len(weights)) if choice.layer is None else [choice.layer]
    heads = range(len(weights[0])) if choice.head is None else [choice.head]
    panels = [(layer, head) for layer in layers for head in heads]
    every = len(layers) > 1 and len(heads) > 1
    across = len(heads) if every else min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    cell, points = (0.24, 9) if len(panels) == 1 else (0.09, 5.5) if every else (0.15, 7.5)  # inches, and of a letter
    size = [max(0.9, cell * len(side)) for side in labels]
    room = [0.6 * points / 72 * max(map(len, side)) + 0.1 for side in labels]
    figure = Figure(
        (across * (size[1] + 0.12) + room[0] + 0.7, down * (size[0] + 0.25) + room[1]), layout="constrained"
    )
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    vectors = len(panels) * len(labels[0]) * len(labels[1]) <= VECTORS
    mesh = None
    for axes, (layer, head) in zip(grid.flat, panels, strict=False):
        values = weights[layer][head]
        hidden = np.triu(np.ones(values.shape, bool), 1) if choice.kind == "decoder" else np.zeros(values.shape, bool)
        mesh = _map(axes, np.ma.array(values, mask=hidden), labels, points, vectors)
        axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=points + 0.5, pad=3)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    assert mesh is not None
    bar = figure.colorbar(mesh, ax=grid, shrink=min(1, 1.6 / (down * size[0])), aspect=12, pad=0.012)
    bar.ax.tick_params(labelsize=points, length=2)
    bar.outline.set_visible(False)
    return figure


def _map(axes: "Axes", values: Any, labels: Sequence[Sequence[str]], points: float, vectors: bool) -> Any:
    """One heat map: a row for each token that looks, a column for each that is looked at."""
    edges = {"edgecolor": "white", "linewidth": 0.25} if vectors else {"rasterized": True}
    mesh = axes.pcolormesh(values, cmap="Blues", vmin=0, vmax=1, **edges)
    axes.set_aspect("equal")
    axes.set_xlim(0, values.shape[1])
    axes.set_ylim(values.shape[0], 0)
    axes.set_yticks(np.arange(values.shape[0]) + 0.5, labels[0], fontsize=points)
    axes.set_xticks(np.arange(values.shape[1]) + 0.5, labels[1], rotation=90, fontsize=points)
    axes.tick_params(length=0, pad=2)
    for spine in axes.spines.values():
        spine.set_linewidth(0.4)
        spine.set_color("0.6")
    return mesh


def _shown(token: Token) -> str:
    """A token as a label."""
    if token.role == "special":
        return f"⟨{token.text}⟩"
    return f"·{token.text}" if token.role == "continues" else token.text


def _fonts(characters: set[str]) -> tuple[list[str], set[str]]:
    """The families that have these characters between them, DejaVu Sans first; and the characters that none has."""
    from matplotlib import font_manager

    def plain(entry: Any) -> bool:
        named = entry.name.startswith(("cm", "STIX")) or "Last Resort" in entry.name  # have letters only in name
        return not named and entry.style == "normal" and entry.weight in (400, "normal", "regular", "book")

    first = "DejaVu Sans"  # comes with matplotlib
    entries = [entry for entry in font_manager.fontManager.ttflist if plain(entry)]
    entries.sort(key=lambda entry: (entry.name != first, not entry.name.startswith("Noto Sans"), entry.name))
    families, lacking = [first], set(characters)
    for entry in entries:
        if not lacking:
            break
        try:
            there = font_manager.get_font(entry.fname).get_charmap()
        except (OSError, RuntimeError):  # a damaged font is no font
            continue
        if found := {char for char in lacking if ord(char) in there}:
            lacking -= found
            families += [entry.name] if entry.name not in families else []
    return families, lacking
