"""Scores are sacreBLEU's, and no number comes without what makes it comparable."""

import json
import logging
import random

import pytest

from nmt.errors import DataError, NmtError
from nmt.evaluation import Report, Row, bleu, score, scoring

# The example of sacreBLEU's README: two references, one translation.
DOG = [
    ["The dog bit the man.", "It was not unexpected.", "The man bit him first."],
    ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."],
]
BITTEN = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]

# metric, translation, references, options, what it must give, who says so
GOLDEN = [
    ("bleu", BITTEN, DOG, {}, 48.530827, "sacreBLEU README (48.53) and test_bleu.py"),
    ("bleu", BITTEN, DOG, {"tokenize": "none"}, 49.1919566, "sacreBLEU test_bleu.py"),
    ("bleu", BITTEN, DOG, {"tokenize": "intl"}, 43.91623493, "sacreBLEU test_bleu.py"),
    ("bleu", ["", "", ""], DOG, {}, 0.0, "sacreBLEU test_bleu.py"),
    ("ter", ["aaaa bbbb cccc dddd"], ["aaaa bbbb cccc dddd"], {}, 0.0, "sacreBLEU test_ter.py"),
    ("ter", ["dddd eeee ffff"], ["aaaa bbbb cccc"], {}, 100.0, "sacreBLEU test_ter.py"),
    ("ter", ["d e f g h a b c"], ["a b c d e f g h"], {}, 12.5, "sacreBLEU test_ter.py: one shift in 8"),
    ("ter", [""], ["a"], {}, 100.0, "sacreBLEU test_ter.py"),
    # Characters: half of the unigrams, none of the bigrams; words: the same. (½ + 0 + ½ + 0) / 4.
    ("chrf", ["a b"], ["a c"], {}, 25.0, "by hand"),
    ("chrf", ["a B"], ["a b"], {"lowercase": True}, 100.0, "by hand"),
    ("bleu", ["THE DOG BIT THE MAN"], ["the dog bit the man"], {"lowercase": True}, 100.0, "by hand"),
]

NAMES = {"bleu": "BLEU", "chrf": "chrF2++", "ter": "TER"}


def sentences(count: int) -> list[str]:
    """Lines of 4 to 20 words, the same every time."""
    dice = random.Random(1)
    words = [f"word{number}" for number in range(50)]
    return [" ".join(dice.choices(words, k=dice.randint(4, 20))) for _ in range(count)]


def spoiled(lines: list[str], share: float, seed: int) -> list[str]:
    """`lines` with about that share of their words replaced."""
    dice = random.Random(seed)
    return [" ".join("wrong" if dice.random() < share else word for word in line.split()) for line in lines]


@pytest.mark.parametrize(("metric", "translation", "references", "options", "expected", "source"), GOLDEN)
def test_a_score_is_the_published_one(metric, translation, references, options, expected, source):
    report = score(references, {"system": translation}, metrics=[metric], confidence=False, **options)
    assert report.row("system", NAMES[metric]).score == pytest.approx(expected, abs=1e-6), source


def test_the_interval_does_not_change_the_score():
    with_interval = score(DOG, {"system": BITTEN})
    without = score(DOG, {"system": BITTEN}, confidence=False)
    assert [row.score for row in with_interval.rows] == [row.score for row in without.rows]
    assert all(row.ci is not None and row.mean is not None for row in with_interval.rows)
    assert all(row.ci is None and row.mean is None for row in without.rows)


def test_the_signature_says_how_the_score_was_made():
    signature = score(DOG, {"system": BITTEN}, metrics=["bleu"]).rows[0].signature
    assert signature.startswith("nrefs:2|bs:1000|seed:12345|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_tokenization_and_case_are_written_in_the_signature():
    plain = score(DOG, {"system": BITTEN}, confidence=False)
    other = score(DOG, {"system": BITTEN}, confidence=False, tokenize="intl", lowercase=True)
    before, after = ({row.metric: row.signature for row in report.rows} for report in (plain, other))
    assert "case:mixed" in before["BLEU"]
    assert "tok:13a" in before["BLEU"]
    assert "case:lc" in after["BLEU"]
    assert "tok:intl" in after["BLEU"]
    assert before["chrF2++"] != after["chrF2++"]
    assert before["TER"] == after["TER"]  # it never minded case


def test_one_reference_may_be_given_as_plain_lines():
    assert score(DOG[0], {"system": BITTEN}) == score([DOG[0]], {"system": BITTEN})


def test_the_same_files_give_the_same_report():
    lines = sentences(30)
    systems = {"first": spoiled(lines, 0.2, seed=1), "second": spoiled(lines, 0.3, seed=2)}
    assert score(lines, systems) == score(lines, systems)


def test_a_system_alone_has_the_interval_it_has_in_company():
    lines = sentences(30)
    first, second = spoiled(lines, 0.2, seed=1), spoiled(lines, 0.4, seed=2)
    together = score(lines, {"first": first, "second": second})
    for system, translation in {"first": first, "second": second}.items():
        alone = score(lines, {system: translation})
        for row in alone.rows:
            found = together.row(system, row.metric)
            assert (found.score, found.mean, found.ci) == (row.score, row.mean, row.ci)


def test_a_system_does_not_differ_from_itself():
    lines = sentences(50)
    same = spoiled(lines, 0.3, seed=1)
    report = score(lines, {"first": same, "again": list(same)})
    assert [row.p_value for row in report.rows] == [None, None, None, 1.0, 1.0, 1.0]


def test_a_clear_difference_is_significant_and_chance_is_not():
    lines = sentences(200)
    shares = {"first": 0.3, "chance": 0.3, "better": 0.1}
    systems = {name: spoiled(lines, share, seed) for seed, (name, share) in enumerate(shares.items())}
    report = score(lines, systems, metrics=["bleu", "chrf"])
    assert all(report.row("better", metric).p_value < 0.01 for metric in report.metrics)
    assert all(report.row("chance", metric).p_value > 0.05 for metric in report.metrics)


def test_a_blank_line_counts_as_a_line():
    assert score(["a b c d e", "f g h i j"], {"system": ["a b c d e", ""]}).row("system", "BLEU").score < 100


def test_a_missing_line_is_told_with_both_counts():
    with pytest.raises(DataError, match=r"short\.de has 2 lines, the reference has 3") as told:
        score(DOG, {"good.de": BITTEN, "short.de": BITTEN[:2]})
    assert "\n" not in str(told.value)
    with pytest.raises(DataError, match="reference 2 has 1 lines, the reference has 3"):
        score([DOG[0], DOG[1][:1]], {"system": BITTEN})
    with pytest.raises(DataError, match="has 2 lines, the reference has 3"):
        bleu(BITTEN[:2], DOG[0])


@pytest.mark.parametrize("nothing", [[], [[]]])
def test_an_empty_reference_is_told(nothing):
    with pytest.raises(DataError, match="the reference has no lines"):
        score(nothing, {"system": []})
    with pytest.raises(DataError, match="the reference has no lines"):
        bleu([], [])


def test_an_unknown_metric_or_tokenization_is_told_with_the_choices():
    with pytest.raises(NmtError, match="no metric 'blue'; choose from bleu, chrf, ter"):
        score(DOG, {"system": BITTEN}, metrics=["blue"])
    with pytest.raises(NmtError, match=r"no tokenization '14a'; choose from .*13a"):
        score(DOG, {"system": BITTEN}, tokenize="14a")
    with pytest.raises(NmtError, match="no translation to score"):
        score(DOG, {})


def test_a_tokenization_that_is_not_installed_is_told(monkeypatch):
    def missing(**_):
        raise RuntimeError("Please install\n  the package")

    missing.TOKENIZERS = ["ja-mecab"]
    monkeypatch.setattr(scoring, "BLEU", missing)
    with pytest.raises(NmtError, match="'ja-mecab' cannot be used here: Please install the package"):
        score(DOG, {"system": BITTEN}, tokenize="ja-mecab")


def test_more_lines_are_resampled_less_often_and_the_report_says_so(monkeypatch):
    monkeypatch.setattr(scoring, "RESAMPLED_LINES", 6000)
    lines = sentences(30)
    assert "bs:200|" in score(lines, {"system": lines}).rows[0].signature
    monkeypatch.setattr(scoring, "RESAMPLED_LINES", 600)
    report = score(lines, {"system": lines})
    assert [row.ci for row in report.rows] == [None, None, None]
    assert report.lines()[-1] == "no intervals and no p-values: 30 lines are too many to resample in memory"


def test_tokenised_text_raises_no_warning_where_it_was_announced(caplog):
    lines = ["a b c d ."] * 100
    with caplog.at_level(logging.WARNING):
        score(lines, {"system": lines}, tokenize="none", confidence=False)
        bleu(lines, lines)
        assert caplog.text == ""
        score(lines, {"system": lines}, confidence=False)
        assert "forgot to detokenize" in caplog.text


def test_the_quick_bleu_of_training_is_the_same_bleu():
    lines = sentences(30)
    translation = spoiled(lines, 0.3, seed=1)
    report = score(lines, {"system": translation}, metrics=["bleu"], confidence=False)
    assert bleu(translation, lines) == report.rows[0].score


def test_the_report_survives_json():
    report = score(DOG, {"first": BITTEN, "second": DOG[0]})
    found = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert Report(tuple(Row(**row) for row in found["rows"]), tuple(found["notes"])) == report


def test_the_terminal_shows_every_score_with_its_signature_and_its_error():
    report = score(DOG, {"first": BITTEN, "second": DOG[0]})
    text = "\n".join(report.lines())
    for row in report.rows:
        assert f"{row.score:.2f} ± {row.ci:.2f}" in text
        assert row.signature in text
    assert "p = 0.001 *" in text
    assert "paired bootstrap against first" in text
    assert "precisions 82.4/50.0/45.5/37.5, brevity penalty 0.943, length ratio 0.944 (17 / 18" in text


def test_the_terminal_explains_no_sign_it_does_not_use():
    text = "\n".join(score(DOG, {"system": BITTEN}, confidence=False).lines())
    assert "±" not in text
    assert "bootstrap" not in text
