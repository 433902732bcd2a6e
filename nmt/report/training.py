"""The report of a training, or of several side by side, as one web page (`training.html`)."""

import datetime
import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from nmt.errors import NmtError
from nmt.recipe import Recipe, Section
from nmt.report import pages
from nmt.report.runs import Run
from nmt.report.test_sets import test_sets

POINTS = 1000  # of a curve, which is as many as can be seen
DIGITS = 5
COLUMNS: dict[str, Callable[[Sequence[float]], float]] = {  # of a line of progress, and how several become one
    "loss": statistics.fmean,
    "nll": statistics.fmean,
    "gradient_norm": statistics.fmean,
    "gradient_norm_max": max,
    "learning_rate": statistics.fmean,
    "target_tokens_per_second": statistics.fmean,
    "share_of_peak": statistics.fmean,
    "memory": max,
}
MEASURED = "loss", "bleu", "chrf"

Line = dict[str, Any]


def page(runs: Sequence[Run], version: str) -> str:
    """The page about these runs, whole in itself. Raises `NmtError` where one is there twice."""
    folders = [run.layout.folder.resolve() for run in runs]
    if twice := next((one for one in folders if folders.count(one) > 1), None):
        raise NmtError(f"{twice}: named twice: a run is compared with others")
    names = _names(runs)
    looked = datetime.datetime.fromtimestamp(runs[0].looked).astimezone()
    data = {
        "runs": [_run(run, name) for run, name in zip(runs, names, strict=True)],
        "tests": test_sets(runs),
        "settings": [*_settings(runs)],
        "made": f"nmt {version}, {looked:%Y-%m-%d %H:%M %Z}",
    }
    title = " and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} others"
    return pages.filled("training.html", title, data=pages.script_data(_short(data)))


def _names(runs: Sequence[Run]) -> list[str]:
    """A name for each run: that of its folder, and as much of where that lies as tells it from others."""
    parts = [run.layout.folder.resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len({*names}) == len(names):
            break
    return names


def _run(run: Run, name: str) -> dict[str, Any]:
    """All that the page tells of a run beside its test sets."""
    kind, state = run.state()
    curves = _curves(run.train)
    data = run.recipe.data if run.recipe else None
    return {
        "name": name,
        "folder": str(run.layout.folder),
        "languages": [data.source, data.target] if data else None,
        "kind": kind,
        "state": state,
        "step": run.step,
        "steps": run.recipe.train.steps if run.recipe else None,
        "facts": dict(_facts(run, curves)),
        "train": _thinned(curves),
        "valid": _measured(run.valid, curves),
        "entropy": [line.get("attention_entropy") or {} for line in run.valid],
        "marks": [*_marks(run)],
        "samples": [*_samples(run.samples)],
    }


def _curves(lines: Sequence[Line]) -> dict[str, list[Any]]:
    """The lines of progress as columns, and with them the tokens and the hours of training up to each.

    After a stop a line may be about a part of its updates only, those since training went on: the others were told of
    in lines that are gone. They are taken to have had as many tokens.
    """
    table: dict[str, list[Any]] = {"step": [], "tokens": [], "hours": [], **{name: [] for name in COLUMNS}}
    counts = [after - before for before, after in itertools.pairwise([0, *(line["step"] for line in lines)])]
    told = [line["target_tokens"] for line in lines]
    usual = statistics.median([tokens / count for tokens, count in zip(told, counts, strict=True)] or [0])
    tokens = hours = 0.0
    for line, count in zip(lines, counts, strict=True):
        all_of_it = line["target_tokens"] > 0.9 * usual * count
        done = line["target_tokens"] if all_of_it else usual * count
        tokens += done
        hours += done / line["target_tokens_per_second"] / 3600
        table["step"].append(line["step"])
        table["tokens"].append(tokens)
        table["hours"].append(hours)
        for name in COLUMNS:
            table[name].append(line.get(name))
    return table


def _thinned(table: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The same with no more points than can be seen: neighbours as one."""
    size = -(-len(table["step"]) // POINTS)
    if size < 2:
        return table
    cuts = range(0, len(table["step"]), size)
    thin: dict[str, list[Any]] = {}
    for name, column in table.items():
        groups = [[value for value in column[cut : cut + size] if value is not None] for cut in cuts]
        joined = COLUMNS.get(name, max)
        thin[name] = [joined(group) if group else None for group in groups]
    return thin


def _measured(lines: Sequence[Line], curves: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """What the valid corpus said, as columns; tokens and hours lie between those of the lines of progress."""
    table: dict[str, list[Any]] = {"step": [line["step"] for line in lines]}
    table |= {name: [line.get(name) for line in lines] for name in MEASURED}
    for name in ("tokens", "hours"):
        table[name] = np.interp(table["step"], [0, *curves["step"]], [0, *curves[name]]).tolist()
    return table


def _facts(run: Run, curves: dict[str, list[Any]]) -> Iterator[tuple[str, Any]]:
    """What there is to say of a run in a figure each; what is not known is left out."""
    begun = run.begun()
    yield "parameters", run.parameters()
    if curves["step"]:
        speeds = [value for value in curves["target_tokens_per_second"] if value]
        yield "speed", statistics.median(speeds) if speeds else None
        yield "tokens", curves["tokens"][-1]
        yield "seconds", 3600 * curves["hours"][-1]
        yield "skipped", max(line.get("skipped_updates") or 0 for line in run.train[-1:])
        shares = [value for value in curves["share_of_peak"] if value]
        yield "share", statistics.median(shares) if shares else None
        yield "memory", max((value for value in curves["memory"] if value), default=None)
    yield "rewinds", len(run.rewinds())
    yield "sessions", sum(line.get("kind") == "begin" for line in run.sessions)
    yield "left", run.seconds_left() if run.state()[0] == "going" else None
    processes, device = begun.get("processes", 1), begun.get("device")
    yield "device", f"{processes} × {device}" if processes > 1 else device
    yield from ((name, begun.get(name)) for name in ("precision", "peak", "peak_is"))
    for by, best in (("bleu", max), ("chrf", max), ("loss", min)):
        found = [(line[by], line["step"]) for line in run.valid if line.get(by) is not None]
        yield f"best_{by}", best(found) if found else None


def _marks(run: Run) -> Iterator[dict[str, Any]]:
    """Where something happened: the update, what kind of thing, and what in words."""
    begins = [line for line in run.sessions if line.get("kind") == "begin"]
    yield from ({"step": line["step"], "kind": "resumed", "text": "gone on from a checkpoint"} for line in begins[1:])
    for line in run.rewinds():
        text = f"{line['why']}: back to update {line['to']:,}"
        yield {"step": line["step"], "kind": "rewound", "text": text}
    for line in run.skipped:
        text = f"skipped: {' and '.join(line.get('not_finite', []))} not finite"
        yield {"step": line["step"], "kind": "skipped", "text": text}


def _samples(lines: Iterable[Line]) -> Iterator[dict[str, Any]]:
    """The sentences of the valid corpus that are translated each time, and how."""
    sentences: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        key = line["source"], line["reference"]
        one = sentences.setdefault(key, {"source": key[0], "reference": key[1], "steps": [], "translations": []})
        one["steps"].append(line["step"])
        one["translations"].append(line["translation"])
    yield from sentences.values()


def _settings(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Every key of the recipes: its value in each run, its default, and what it is about."""
    recipes = [run.recipe for run in runs]
    dumped = [dict(_flat(recipe.model_dump(mode="json"), Recipe)) if recipe else {} for recipe in recipes]
    if any(dumped):
        for key, (default, about) in _defaults(Recipe):
            values = [one.get(key) for one in dumped]
            yield {"key": key, "values": values, "about": about} | ({"default": default[0]} if default else {})


def _defaults(section: type[Section], prefix: str = "") -> Iterator[tuple[str, tuple[list[Any], str]]]:
    """Of each key below a section its default, as a list that is empty where there is none, and its documentation."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _defaults(field.annotation, f"{prefix}{name}.")
            continue
        default = [] if field.is_required() else [field.get_default(call_default_factory=True)]
        if default and isinstance(default[0], tuple):
            default = [[*default[0]]]
        yield prefix + name, (default, field.description or "")


def _flat(values: dict[str, Any], section: type[Section], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a dumped section by their keys, written in full."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _flat(values[name], field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, values[name]


def _short(value: Any) -> Any:
    """The value with fractions of as many digits as can be seen."""
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_short(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
