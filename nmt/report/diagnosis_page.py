"""What was found in a recipe's text as one web page, whole in itself, without scripts."""

import html
from collections.abc import Iterable, Iterator, Sequence

from nmt.diagnosis.figures import TRAIN, CorpusFigures, Finding
from nmt.report import pages, plots
from nmt.report.diagnosis import HOW, Report, facts, place, share, size

_DOTS = 1500


def page(report: Report, version: str) -> str:
    """The page."""
    sections = (_head, _advice, _text, _lengths, _vocabulary, _findings, _overlaps, _training)
    body = "\n".join(part for section in sections for part in section(report))
    body += f"\n<footer><p>Made by nmt check, nmt {html.escape(version)}.</p></footer>"
    return pages.filled("diagnosis.html", report.recipe.run, body=body)


def _head(report: Report) -> Iterator[str]:
    data = report.recipe.data
    yield '<header><p class="eyebrow">What is in the text</p>'
    yield f"<h1>{html.escape(report.recipe.run)}</h1>"
    yield f'<p class="verdict">{html.escape(f"{data.source} to {data.target}: {report.verdict}")}.</p></header>'


def _advice(report: Report) -> Iterator[str]:
    if not report.advice:
        return
    yield '<h2>To mend</h2><ul class="advice">'
    for one in report.advice:
        yield (
            f'<li class="{one.level}"><b>{one.level}</b><code>{html.escape(one.key)}</code> {html.escape(one.what)}'
            f"<i>{html.escape(one.mend)}</i></li>"
        )
    yield "</ul>"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], texts: Sequence[int] = (0, 1)) -> str:
    """A table whose columns are figures, but for `texts`."""
    kinds = ["" if number in texts else ' class="n"' for number in range(len(headings))]
    head = "".join(f"<th{kind}>{html.escape(one)}</th>" for kind, one in zip(kinds, headings, strict=True))
    lines = (
        "".join(f"<td{kind}>{html.escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(report: Report) -> Iterator[str]:
    data = report.recipe.data
    yield "<h2>Text</h2>"
    headings = ["", "corpus", "pairs", "kept", f"{data.source} words", f"{data.target} words"]
    rows = []
    for number, one in enumerate(report.found.corpora):
        kept = f"{one.kept:,} ({share(one.kept, one.pairs)})"
        words = [f"{side.words:,}" for side in one.sides]
        characters = [size(side.characters) for side in one.sides]
        rows.append([report.labels()[number], one.name, f"{one.pairs:,}", kept, *words, *characters])
    yield _table([*headings, f"{data.source} char.", f"{data.target} char."], rows)


def _lengths(report: Report) -> Iterator[str]:
    yield "<h2>Lengths</h2>"
    rows, cards = [], []
    for number, one in enumerate(report.found.corpora):
        label = report.labels()[number]
        for kind, side in zip("st", one.sides, strict=True):
            cells = [label, side.language]
            for what, lengths in (("words", side.in_words), ("pieces", side.in_pieces)):
                cells += [f"{lengths.mean:.1f}", f"{lengths.median:,}", f"{lengths.p95:,}", f"{lengths.longest:,}"]
                if one.key == TRAIN:
                    title = html.escape(f"{label}, {side.language}, in {what}")
                    plot = plots.histogram(lengths.counts, lengths.width, kind, what)
                    cards.append(f'<div class="card"><h3>{title}</h3>{plot}</div>')
            rows.append(cells)
    columns = ["median", "95%", "longest"]
    yield _table(["", "", "words: mean", *columns, "pieces: mean", *columns], rows)
    yield f'<div class="grid">{"".join(cards)}</div>'


def _vocabulary(report: Report) -> Iterator[str]:
    found, data = report.found, report.recipe.data
    yield f"<h2>Vocabulary</h2><p>The tokenizer is {html.escape(found.tokenizer)}.</p>"
    headings = ["", "learned entries", "used", "10 times or more", "100 times or more"]
    counts = [(one.entries, one.used, one.seen_10, one.seen_100) for one in found.vocabularies]
    rows = [[one.language, *(f"{n:,}" for n in four)] for one, four in zip(found.vocabularies, counts, strict=True)]
    yield _table(headings, rows, texts=(0,))
    named = zip(("", "t"), found.vocabularies, strict=False)
    curve = plots.curves(((kind, one.language, one.counts, one.entries) for kind, one in named), (10, 100))
    points = found.lengths[:: max(1, len(found.lengths) // _DOTS)][:_DOTS]
    cloud = plots.cloud(points, report.recipe.data.max_ratio, data.source, data.target)
    ratio = f"Lengths of pairs drawn from the training text; beyond the lines data.max_ratio ({data.max_ratio:g}) drops"
    yield (
        f'<div class="grid"><div class="card"><h3>How often entries are seen</h3>{curve}</div>'
        f'<div class="card"><h3>{ratio}</h3>{cloud}</div></div>'
    )
    rows = []
    for number, one in enumerate(found.corpora):
        for which, side in enumerate(one.sides):
            unseen = found.unseen[one.key][which] if one.key in found.unseen else None
            new = share(unseen.unseen, unseen.words) if unseen else ""
            lacking = " ".join(f"{character} ({count:,})" for character, count in side.lacking.items())
            some = ", ".join(unseen.examples) if unseen else ""
            in_bytes = share(side.in_bytes, side.pieces) if side.in_bytes else "none"
            cells = [report.labels()[number], side.language, f"{side.fertility:.2f}", in_bytes, new]
            rows.append([*cells, "; ".join(filter(None, (lacking, some)))])
    headings = ["", "", "pieces a word", "pieces in bytes", "unseen words", "characters that are lacking; unseen words"]
    yield _table(headings, rows, texts=(0, 1, 5))


def _findings(report: Report) -> Iterator[str]:
    if not any(one.findings for one in report.found.corpora):
        return
    yield "<h2>Suspicious pairs</h2>"
    for number, one in enumerate(report.found.corpora):
        if one.findings:
            yield f'<div class="card" style="margin-bottom:14px"><h3>{html.escape(report.labels()[number])}: '
            yield f"{html.escape(', '.join(one.files))}</h3>"
            yield from (_finding(one, finding) for finding in one.findings)
            yield "</div>"


def _finding(one: CorpusFigures, finding: Finding) -> str:
    most = max(other.pairs for other in one.findings)
    examples = "".join(
        f"<dt>{place(one, example)}</dt><dd><span>{html.escape(example.source)}</span>"
        f"<span>{html.escape(example.target)}</span></dd>"
        for example in finding.examples
    )
    meter = f'<span class="meter"><i style="width:{100 * finding.pairs / most:.1f}%"></i></span>'
    return (
        f"<details><summary><b>{html.escape(finding.kind)}</b><span class='fate'>{finding.fate}</span>"
        f"<span class='n'>{finding.pairs:,}</span><span class='n'>{share(finding.pairs, one.pairs)}</span>{meter}"
        f'</summary><dl class="pairs">{examples}</dl></details>'
    )


def _overlaps(report: Report) -> Iterator[str]:
    yield "<h2>Overlap</h2>"
    rows = []
    for one in report.found.overlaps:
        keys = [key.removeprefix("data.") for key in (one.key, one.other)]
        rows.append([*keys, f"{one.found:,}", share(one.found, one.sources), f"{one.same:,}", f"{one.pairs:,}"])
    yield _table(["", "is in", "sources", "", "with the same translation", "pairs there"], rows)


def _training(report: Report) -> Iterator[str]:
    if report.estimate:
        yield "<h2>Training</h2>"
        yield _table(["", ""], facts(report.estimate))
        yield f'<p class="soft" style="margin-top:10px">{html.escape(HOW)}</p>'
