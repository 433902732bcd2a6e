"""Several tasks in one model: tags and other symbols are one token each, in training as when they are typed; and a
vocabulary of another model, or of SentencePiece itself, serves as one of our own."""

import io
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from commands import Server, Shell
from hypothesis import given
from hypothesis import strategies as st

from nmt import recipe as recipes
from nmt.data import Manifest, Shards, check_prepared, prepare
from nmt.data.segmentation import Segmenter
from nmt.errors import DataError, ModelError, NmtError, RecipeError
from nmt.ids import BOS, EOS, PAD, SPECIALS, UNK
from nmt.recipe import Recipe
from nmt.text import Tokenizer, Tokenizers, one_line, train_tokenizer
from nmt.text.proto import Proto
from nmt.training import average, train
from nmt.translation import Translator, translate_test_sets

WORDS = {
    "dog": ("Hund", "chien"), "cat": ("Katze", "chat"), "tree": ("Baum", "arbre"), "house": ("Haus", "maison"),
    "bird": ("Vogel", "oiseau"), "water": ("Wasser", "eau"), "bread": ("Brot", "pain"), "book": ("Buch", "livre"),
}  # fmt: skip
RECIPE = """
run: run
data:
  source: en
  target: de
  train: [{path: text, tag: <2de>}, {path: text, languages: [en, fr], tag: <2fr>}]
  valid: {path: held, tag: <2de>}
  test: {german: {path: held, tag: <2de>}, french: {path: held, languages: [en, fr], tag: <2fr>}}
  clean: {duplicates: false, language: false}
tokenizer: {vocab_size: 400}
model: {layers: 1, d_model: 64, heads: 2, d_ffn: 128, dropout: 0.0, norm: pre}
train: {steps: 200, batch_tokens: 300, schedule: {warmup: 50, scale: 0.15}, label_smoothing: 0.0, valid_bleu: 8,
        valid_every: 200, checkpoint_every: 200, keep: 1, precision: fp32}
average: {last: 1}
decode: {beam: 1, max_extra: 10}
"""
TEXT = [f"{a} {b} {c} ." for a in ("the", "this") for b in WORDS for c in ("sings", "runs", "sleeps")]
SYMBOLS = ["<2de>", "<BT>", "<ph,1>", "{x}", "ſ→s"]
TOKENIZER = Tokenizer(train_tokenizer(TEXT, 320, symbols=SYMBOLS))


def sentences(count: int, seed: int) -> list[list[str]]:
    draw = random.Random(seed)
    return [draw.sample(list(WORDS), draw.randint(2, 4)) for _ in range(count)]


def write(prefix: str, lines: list[list[str]]) -> None:
    sides = {"en": lambda w: w, "de": lambda w: WORDS[w][0], "fr": lambda w: WORDS[w][1]}
    for language, said in sides.items():
        Path(f"{prefix}.{language}").write_text("".join(" ".join(map(said, line)) + "\n" for line in lines))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two tasks: the same sources into one language or the other, as the tag says. Not to be changed."""
    folder = tmp_path_factory.mktemp("tagged")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write("text", sentences(250, 1))
        write("held", sentences(8, 2))
        recipe = recipes.loads(RECIPE)
        Path("recipe.yaml").write_text(RECIPE)
        prepare(recipe, workers=1, report=lambda line: None)
        train(recipe, "cpu")
        average(recipe)
    return folder


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("text", sentences(40, 1))
    write("held", sentences(8, 2))


def recipe(*changes: str) -> Recipe:
    return recipes.loads(RECIPE, overrides=changes)


def run(*changes: str) -> list[str]:
    """Prepares; gives what was told."""
    lines: list[str] = []
    prepare(recipe(*changes), workers=1, report=lines.append)
    return lines


def stored() -> list[tuple[list[int], list[int]]]:
    shards = Shards.open("run/data", "train")
    return [tuple(side.tolist() for side in shards.pair(pair)) for pair in range(len(shards))]  # type: ignore[misc]


# Symbols


@given(st.lists(st.sampled_from([*SYMBOLS, "the", "dog", "sings", "日本", "<2", ">", "."]), max_size=8), st.data())
def test_symbols_are_one_token_each_wherever_they_stand_and_text_comes_back(parts: list[str], data: st.DataObject):
    line = "".join(part + data.draw(st.sampled_from(["", " "])) for part in parts)
    ids = TOKENIZER.encode([line])[0]
    pieces = TOKENIZER.pieces(ids)
    assert TOKENIZER.decode([ids]) == [one_line(line)]
    assert all(pieces.count(symbol) == line.count(symbol) for symbol in SYMBOLS)
    again = TOKENIZER.resample([ids] * 3, 0.5, 7)
    assert TOKENIZER.decode(again) == [one_line(line)] * 3
    assert all(TOKENIZER.pieces(cut).count(symbol) == line.count(symbol) for cut in again for symbol in SYMBOLS)


def test_a_tag_before_a_line_is_its_first_token_and_changes_no_other() -> None:
    plain = TOKENIZER.encode(TEXT)
    typed = TOKENIZER.encode([f" <2de>  {line}" for line in TEXT])
    assert typed == [[SPECIALS, *ids] for ids in plain]
    assert TOKENIZER.symbols == SYMBOLS


def test_without_symbols_a_vocabulary_is_what_it_always_was() -> None:
    assert train_tokenizer(TEXT, 320) == train_tokenizer(TEXT, 320, symbols=[])
    assert Tokenizer(train_tokenizer(TEXT, 320)).symbols == []


@pytest.mark.parametrize("symbol", ["<s>", "</s>", "<pad>", "<unk>", "<0x41>", "a b", "", "▁", "e\u0301", "a\tb"])
def test_what_can_be_no_symbol_is_told(symbol: str) -> None:
    with pytest.raises(RecipeError, match=r"tokenizer\.symbols\[0\]: must be"):
        recipes.loads(recipes.dump(recipe()).replace("symbols: []", f"symbols: [{symbol!a}]".replace("'", '"')))


# Tags in corpora


def test_a_line_typed_with_its_tag_has_the_ids_that_training_had(text: None) -> None:
    run("tokenizer.symbols=[<BT>]")
    tokenizer, pairs = Tokenizers.load("run/data").source, stored()
    assert tokenizer.symbols == ["<BT>", "<2de>", "<2fr>"]
    english = Path("text.en").read_text().splitlines()
    typed = [f"{tag} {line}" for tag in ("<2de>", "<2fr>") for line in english]
    assert [source for source, _ in pairs] == tokenizer.encode(typed)
    assert [tokenizer.pieces(source)[0] for source, _ in pairs] == ["<2de>"] * 40 + ["<2fr>"] * 40
    targets = tokenizer.decode([target for _, target in pairs])
    assert targets == [line for code in ("de", "fr") for line in Path(f"text.{code}").read_text().splitlines()]
    valid = Shards.open("run/data", "valid").pair(0)[0].tolist()
    assert [valid] == tokenizer.encode([f"<2de> {Path('held.en').read_text().splitlines()[0]}"])


def test_several_symbols_make_a_tag_too(text: None) -> None:
    run('data.train={path: text, tag: "<2de> <BT>"}')
    tokenizer = Tokenizers.load("run/data").source
    line = Path("text.en").read_text().splitlines()[0]
    assert stored()[0][0] == tokenizer.encode([f"<2de> <BT> {line}"])[0]
    assert tokenizer.symbols == ["<2de>", "<BT>", "<2fr>"]


def test_a_tag_is_no_part_of_the_length_of_a_sentence(text: None) -> None:
    plain, tagged = "data.train=text", "data.train={path: text, tag: <2de>}"
    run(plain, "run=whole", "tokenizer.vocab_size=330")
    for change in ("data.max_length=10", "data.max_ratio=1.2"):
        run(plain, change, "tokenizer={reuse: whole}")
        kept = len(stored())
        assert 0 < kept < 40
        run(tagged, change, "tokenizer={reuse: whole}")
        assert len(stored()) == kept


def test_languages_of_a_corpus_are_those_it_is_cleaned_by(text: None) -> None:
    Path("text.ru").write_text("собака и кошка\n" * 40)
    several = "data.train=[{path: text}, {path: text, languages: [en, ru]}]"
    run(several)
    assert len(stored()) == 80
    shutil.copy("text.en", "wrong.en")
    shutil.copy("text.ru", "wrong.de")
    told = "\n".join(run("data.train=[{path: text}, {path: wrong}]"))
    assert "40 pairs read from wrong, 40 dropped (100.00%): 40 wrong script" in told


def test_a_corpus_of_two_languages_is_told_apart_by_them(text: None) -> None:
    told = "\n".join(run())
    assert "train: 40 pairs read from text, none dropped" in told
    assert "train: 40 pairs read from text (en-fr), none dropped" in told
    assert "subwords of en and de and fr" in told


def test_a_pair_is_another_one_under_another_tag(text: None) -> None:
    clean = "data.clean.duplicates=true"
    run(clean, "data.train=[{path: text, tag: <a>}, {path: text, tag: <b>}]")
    other = len(stored())
    run(clean, "data.train=[{path: text, tag: <a>}, {path: text, tag: <a>}]")
    assert other == 2 * len(stored())


def test_jsonl_has_its_values_under_the_codes_of_its_own_languages(text: None) -> None:
    Path("all.jsonl").write_text('{"en": "bird", "de": "Vogel", "fr": "oiseau"}\n')
    run("data.train=[{path: text}, {jsonl: all.jsonl, languages: [fr, de], tag: <x>}]")
    tokenizer = Tokenizers.load("run/data").source
    assert tokenizer.decode(stored()[-1]) == ["<x> oiseau", "Vogel"]  # type: ignore[arg-type]


def test_a_symbol_more_prepares_again_wherever_the_tag_is(text: None) -> None:
    run()
    assert "again: the recipe has changed in tokenizer.symbols" in run("data.test={a: {path: held, tag: <new>}}")[0]


def test_dropout_keeps_tags_in_their_place(text: None) -> None:
    run()
    asked = recipe("train.bpe_dropout=0.5")
    tokenizers = Tokenizers.load("run/data")
    segmenter = Segmenter(Shards.open("run/data", "train"), tokenizers, asked)
    pairs = np.arange(80)
    for step in (1, 2):
        found = segmenter.update(step, pairs).pairs
        assert [int(source[0]) for source, _ in found] == [SPECIALS] * 40 + [SPECIALS + 1] * 40
        assert sum(map(len, [source for source, _ in found])) > sum(map(len, [source for source, _ in stored()]))
        said = tokenizers.source.decode([source.tolist() for source, _ in found])
        assert said == tokenizers.source.decode([source for source, _ in stored()])


def test_noise_leaves_tags_as_they_are(text: None) -> None:
    run()
    asked = recipe("train.noise={upper: 1.0}")
    tokenizers = Tokenizers.load("run/data")
    found = Segmenter(Shards.open("run/data", "train"), tokenizers, asked).update(1, np.arange(80)).pairs
    said = tokenizers.source.decode([source.tolist() for source, _ in found])
    english = Path("text.en").read_text().upper().splitlines()
    assert said == [f"{tag} {line}" for tag in ("<2de>", "<2fr>") for line in english]


def test_positions_that_are_learned_have_room_for_the_tag() -> None:
    change = ["model.positions=learned", "data.max_length=30"]
    recipe(*change, "model.max_positions=32")
    with pytest.raises(
        RecipeError, match=r"must be above data\.max_length \(30\), for a sentence and its tag and its end"
    ):
        recipe(*change, "model.max_positions=31")


# What the model makes of them


def test_the_tag_decides_the_language(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    translator = Translator.load("run/model", "cpu")
    english = Path("held.en").read_text().splitlines()
    for tag, language in (("<2de>", "de"), ("<2fr>", "fr")):
        expected = Path(f"held.{language}").read_text().splitlines()
        assert translator.translate(english, tag=tag) == expected
        assert translator.translate(f"{tag} {line}" for line in english) == expected


def test_test_sets_are_translated_with_their_tags_into_their_languages(trained: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(trained)
    for found in translate_test_sets(recipe(), Translator.load("run/model", "cpu")):
        assert found.translations == found.references
    assert {path.name for path in Path("run/translations").iterdir()} == {"german.de", "french.fr"}


def test_the_valid_corpus_is_measured_with_its_tag(trained: Path) -> None:
    assert '"bleu": 100' in (trained / "run/metrics.jsonl").read_text()


def test_a_tag_is_put_before_every_line_but_blank_ones_and_counts_as_no_word(server: Server, trained: Path) -> None:
    shell = Shell(server, trained)
    options = ("--device", "cpu", "--alignments")
    lines = b"dog bird\n\n \t\ncat\n"
    found = shell("translate", "run/model", "--tag", "<2fr>", *options, stdin=lines).lines
    assert [line.split(" ||| ")[0] for line in found] == ["chien oiseau", "", "", "chat"]
    typed = shell("translate", "run/model", *options, stdin=b"<2fr> dog bird\n").lines[0]
    links = {tuple(map(int, link.split("-"))) for link in typed.split(" ||| ")[1].split()}
    expected = {(source - 1, target) for source, target in links if source}
    assert {tuple(map(int, link.split("-"))) for link in found[0].split(" ||| ")[1].split()} == expected


def test_a_tag_the_model_does_not_know_is_told(server: Server, trained: Path) -> None:
    told = Shell(server, trained).fails("translate", "run/model", "--tag", "<2xx>", stdin=b"dog\n")
    assert told == "<2xx>: not a symbol of this model; it knows <2de>, <2fr>"


# A vocabulary that is there already


def foreign(path: str, **how: Any) -> Path:
    model = io.BytesIO()
    said: dict[str, Any] = {"vocab_size": 60, "model_type": "bpe", "character_coverage": 1.0, "minloglevel": 2}
    said["hard_vocab_limit"] = False
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXT), model_writer=model, **(said | how))
    Path(path).write_bytes(model.getvalue())
    return Path(path)


FOREIGN = {
    "plain": {},
    "unigram": {"model_type": "unigram"},
    "with bytes": {"byte_fallback": True, "vocab_size": 320},
    "as T5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "model_type": "unigram"},
    "other names": {"pad_id": 3, "unk_piece": "<?>", "bos_piece": "[B]", "eos_piece": "[E]", "pad_piece": "[P]"},
    "symbols": {"user_defined_symbols": ["<2de>", "<mask>"], "control_symbols": ["<c>"]},
    "no space before": {"add_dummy_prefix": False},
}


@pytest.mark.parametrize("how", FOREIGN.values(), ids=FOREIGN)
def test_any_model_of_sentencepiece_is_made_to_fit(how: dict[str, Any], tmp_path: Path) -> None:
    path = foreign(str(tmp_path / "its.model"), **how)
    theirs = sentencepiece.SentencePieceProcessor(str(path))
    ours = Tokenizer.fitted(path, ["<2de>", "<new>"])
    special = (ours._processor.pad_id(), ours._processor.bos_id(), ours._processor.eos_id(), ours._processor.unk_id())
    assert special == (PAD, BOS, EOS, UNK)
    for line in TEXT:  # what it has learned is cut as before
        assert ours.pieces(ours.encode([line])[0]) == theirs.encode(line, out_type=str)
    odd = "<2de> 日本 <new> dog\U0010fffd"
    ids = ours.encode([odd])[0]
    assert ours.decode([ids]) == [odd]
    assert ours.pieces(ids)[0] == "<2de>"
    assert "<new>" in ours.pieces(ids)
    assert UNK not in ids
    assert Tokenizer(ours.model).model == Tokenizer.fitted(path, ["<2de>", "<new>"]).model


def test_of_our_own_vocabulary_every_id_stays_and_new_symbols_come_last(tmp_path: Path) -> None:
    (tmp_path / "our.model").write_bytes(TOKENIZER.model)
    same, more = (Tokenizer.fitted(tmp_path / "our.model", symbols) for symbols in (SYMBOLS, [*SYMBOLS, "<new>"]))
    assert same.model == TOKENIZER.model
    assert more.pieces(range(more.vocab_size)) == [*TOKENIZER.pieces(range(TOKENIZER.vocab_size)), "<new>"]
    assert more.encode(TEXT) == TOKENIZER.encode(TEXT)


def test_a_model_taken_apart_and_put_together_is_the_same(tmp_path: Path) -> None:
    for how in FOREIGN.values():
        model = foreign(str(tmp_path / "its.model"), **how).read_bytes()
        read = Proto.read(model)
        assert Proto.read(read.write()) == read
        before, after = (sentencepiece.SentencePieceProcessor(model_proto=each) for each in (model, read.write()))
        assert before.encode(TEXT) == after.encode(TEXT)


@pytest.mark.parametrize("where", ["run", "run/model", "run/model/tokenizer.model", "run/data"])
def test_a_run_a_model_folder_or_a_file_lends_its_vocabulary(text: None, trained: Path, where: str) -> None:
    told = run(f"tokenizer={{reuse: {trained / where}}}")
    place = "run/data" if where == "run/data" else "run/model"
    assert f"taking 400 subwords from {trained / place / 'tokenizer.model'}" in told
    assert Path("run/data/tokenizer.model").read_bytes() == (trained / place / "tokenizer.model").read_bytes()
    assert Manifest.load("run/data").vocabulary == {"source": 400, "target": 400}


def test_two_vocabularies_are_reused_as_two(text: None) -> None:
    apart = ["tokenizer.shared=false", "model.embeddings=separate"]
    run(*apart, "run=first", "tokenizer.vocab_size=300")
    run(*apart, "tokenizer={reuse: first, shared: false}")
    assert not Tokenizers.load("run/data").shared
    with pytest.raises(DataError, match=r"tokenizer\.shared: must be false, for first has a vocabulary for each side"):
        run("tokenizer={reuse: first}")


def test_another_file_prepares_again_and_the_same_does_not(text: None) -> None:
    path = foreign("its.model")
    change = f"tokenizer={{reuse: {path}}}"
    run(change)
    assert run(change) == ["run/data: prepared already, and nothing has changed since"]
    foreign("its.model", vocab_size=70)
    assert run(change)[0] == "run/data: preparing again: its.model has changed"
    check_prepared(Path("run/data"), recipe(change))


def test_a_reused_vocabulary_that_cannot_be_is_told(text: None, tmp_path: Path) -> None:
    path = foreign("its.model")
    size = Tokenizer.fitted(path, ["<2de>", "<2fr>"]).vocab_size
    with pytest.raises(
        DataError, match=rf"vocab_size: must be {size}, as its\.model comes to here, or left out, found 400"
    ):
        run("tokenizer={reuse: its.model, vocab_size: 400}")
    told = run(f"tokenizer={{reuse: its.model, vocab_size: {size}}}")
    bytes_ = "256 bytes, for it could not spell what it lacks"
    assert f"its.model: added to it: {bytes_}, <pad>, <2de>, <2fr>" in told
    for name, content in {"cut.model": path.read_bytes()[:-100], "empty.model": b"", "text.model": b"no model"}.items():
        Path(name).write_bytes(content)
        with pytest.raises(ModelError, match=f"{name}: not a model of SentencePiece, or cut short"):
            run(f"tokenizer={{reuse: {name}}}")
    Path("folder").mkdir()
    for name, message in {"folder": "there is no tokenizer in it", "nowhere": "no such file or folder"}.items():
        with pytest.raises(ModelError, match=f"{name}: {message}"):
            run(f"tokenizer={{reuse: {name}}}")
    with pytest.raises(RecipeError, match=r"tokenizer\.vocab_size: must be given: entries in all"):
        recipe("tokenizer={shared: true}")


def test_dropout_wants_a_vocabulary_of_byte_pairs(text: None) -> None:
    run(f"tokenizer={{reuse: {foreign('its.model', model_type='unigram')}}}")
    with pytest.raises(NmtError, match=r"train\.bpe_dropout: must be 0"):
        Segmenter(Shards.open("run/data", "train"), Tokenizers.load("run/data"), recipe("train.bpe_dropout=0.1"))
