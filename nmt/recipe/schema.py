"""Every choice of a run: what may be said, within which bounds, and what holds when nothing is said.

The defaults are those of the base model in "Attention Is All You Need" (Vaswani et al., 2017; below
"the paper", with its section) wherever the paper says, so that leaving a key out cannot switch a part of it
off. The text under each key is its documentation; who leaves out a key that must be given is shown it.
"""

import re
import sys
import unicodedata
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Text = Annotated[str, StringConstraints(min_length=1)]
Name = Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*$")]


class Section(BaseModel):
    """A part of the recipe: it cannot be changed once made, and takes no key or type but those it names."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )


def _kind(value: Any) -> str | None:
    """The kind of a value for which a key takes several; a tag in <> is no part of the key's name."""
    if isinstance(value, dict | Section):
        return "<section>"
    return {str: "<text>", int: "<number>"}.get(type(value))


def _number_or_auto(value: Any) -> str | None:
    return "<auto>" if value == "auto" else _kind(value)


def _chosen(by: Callable[[Any], str | None], must: str) -> Discriminator:
    return Discriminator(by, custom_error_type="either", custom_error_message=must)


AutoCount = Annotated[
    Annotated[Count, Tag("<number>")] | Annotated[Literal["auto"], Tag("<auto>")],
    _chosen(_number_or_auto, "must be auto or a whole number"),
]


AutoPositive = Annotated[
    Annotated[Positive, Tag("<number>")] | Annotated[Literal["auto"], Tag("<auto>")],
    _chosen(
        lambda value: _number_or_auto(int(value) if isinstance(value, float) else value), "must be auto or a number"
    ),
]


Frozen = Literal["embeddings", "encoder", "decoder"]
Adapted = Literal["attention", "ffn"]


def _clash(key: str, other: str, must: str, found: Any) -> PydanticCustomError:
    """Two keys that do not go together; `key` and `other` are written in full, as in model.heads."""
    return PydanticCustomError("clash", "{must}", {"must": must, "key": key, "other": other, "found": found})


def _several(value: Any) -> Any:
    """One alone is a list of one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _pair(value: Any) -> Any:
    if isinstance(value, list | tuple) and len(value) == 2:
        return tuple(value)
    raise PydanticCustomError("pair", "must be two numbers, [β1, β2]")


def _two_languages(value: Any) -> Any:
    if isinstance(value, list | tuple) and len(value) == 2 and value[0] != value[1]:
        return tuple(value)
    raise PydanticCustomError("pair", "must be two languages, as in [en, fr]")


_TAKEN = re.compile(r"</?s>|<unk>|<pad>|<0x[0-9A-F]{2}>")  # the tokens that every vocabulary has


def _is_symbol(text: str) -> str:
    if (
        text.split() != [text]
        or "\u2581" in text
        or not text.isprintable()
        or unicodedata.normalize("NFC", text) != text
    ):
        raise PydanticCustomError("symbol", "must be a symbol without spaces, such as <2de>")
    if _TAKEN.fullmatch(text):
        raise PydanticCustomError("symbol", "must be another symbol, for every vocabulary has this one for itself")
    return text


def _is_tag(text: str) -> str:
    for symbol in text.split(" "):
        _is_symbol(symbol)
    return text


Symbol = Annotated[str, AfterValidator(_is_symbol)]
TagText = Annotated[str, AfterValidator(_is_tag)]


class _Listed(Section):
    """A corpus with what there is to say of it. The key `kind` says where it is."""

    kind: ClassVar[str]
    languages: Annotated[tuple[Name, Name], BeforeValidator(_two_languages)] | None = None
    """Its languages, source and target, where they are not data.source and data.target: [en, fr]."""
    tag: TagText | None = None
    """Put before each source sentence as one token, such as <2fr>; or several, with a space between."""
    weight: Positive | None = None
    """Its share of the pairs that training sees, beside the weights of the others; without any, as data.temperature
    says."""

    @model_serializer(mode="wrap")
    def _said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What it is first, and nothing of what is not said."""
        said = {key: value for key, value in dump(self).items() if value is not None}
        return {self.kind: said.pop(self.kind), **said}


class Prefix(_Listed):
    """Two files of equal length, as a PREFIX alone, but with more to say of it."""

    kind = "path"
    path: Text
    """The PREFIX of the two files PREFIX.SOURCE and PREFIX.TARGET."""


class _OneFile(_Listed):
    """Parallel text in one file, under the key that names the kind."""

    @property
    def file(self) -> str:
        """The file; "-" is standard input."""
        return str(getattr(self, self.kind))


class Tsv(_OneFile):
    """Parallel text in one file: a line holds the source sentence, a tab and the target sentence."""

    kind = "tsv"
    tsv: Text
    """The file, plain or compressed (gzip, xz, zst); - is standard input."""


class Jsonl(_OneFile):
    """Parallel text as JSON lines: an object a line, with the two sides under two of its keys."""

    kind = "jsonl"
    jsonl: Text
    """The file, plain or compressed; - is standard input."""
    source: Text | None = None
    """The key of the source sentence, by default the code in data.source; translation.en is en inside translation."""
    target: Text | None = None
    """The key of the target sentence, by default the code in data.target."""


class Tmx(_OneFile):
    """A translation memory, TMX 1.4: the units that have both languages; en takes en-US and en_GB too."""

    kind = "tmx"
    tmx: Text
    """The file, plain or compressed; - is standard input."""


class Xliff(_OneFile):
    """Localised text, XLIFF 1.2 or 2: the units that have a translation."""

    kind = "xliff"
    xliff: Text
    """The file, plain or compressed; - is standard input."""


_KINDS = {kind.kind: kind for kind in (Prefix, Tsv, Jsonl, Tmx, Xliff)}


def _corpus_kind(value: Any) -> str | None:
    """The kind of a corpus, which one of its keys names: <path>, <tsv> and so on."""
    if isinstance(value, _Listed):
        return f"<{value.kind}>"
    if isinstance(value, dict):
        kinds = [kind for kind in _KINDS if kind in value]
        return f"<{kinds[0]}>" if len(kinds) == 1 else None
    return "<text>" if isinstance(value, str) else None


Corpus = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[Prefix, Tag("<path>")]
    | Annotated[Tsv, Tag("<tsv>")]
    | Annotated[Jsonl, Tag("<jsonl>")]
    | Annotated[Tmx, Tag("<tmx>")]
    | Annotated[Xliff, Tag("<xliff>")],
    _chosen(
        _corpus_kind,
        "must be the PREFIX of two files PREFIX.SOURCE and PREFIX.TARGET, "
        f"or one of {', '.join(f'{{{kind}: FILE}}' for kind in _KINDS if kind != 'path')}",
    ),
]


def tag_of(corpus: Corpus) -> str:
    """What stands before each source sentence of a corpus; nothing where it has no tag."""
    return "" if isinstance(corpus, str) else corpus.tag or ""


def weight_of(corpus: Corpus) -> float | None:
    """The weight of a corpus, if it has one."""
    return None if isinstance(corpus, str) else corpus.weight


def _is_piped(corpus: Any) -> bool:
    return isinstance(corpus, _OneFile) and corpus.file == "-"


class Clean(Section):
    """What is wrong with training pairs that are dropped, beside data.max_length and data.max_ratio; all is counted."""

    control_characters: bool = True
    """Drop pairs with control characters, or with U+FFFD, which stands for bytes that nobody could read."""
    entities: bool = True
    """Repair pairs with HTML entities: &amp; becomes &. Not where text to translate has them too, as
    Moses' tokenizer leaves them, for that stays as it is."""
    tags: bool = True
    """Drop pairs with tags of HTML, such as <b> or <br/>."""
    identical: bool = True
    """Drop pairs of more than three words whose sides are the same but for case; shorter ones may be names."""
    min_letters: Rate = 0.2
    """Drop pairs when less than this share of a side is letters, spaces not counted; 0 keeps all."""
    script: bool = True
    """Drop pairs when most letters of a side are of a script that its language, by its code, is not written in. A
    language that we do not know is not checked."""
    numbers: bool = False
    """Drop pairs when a side has digits that the other has not, however they are grouped and ordered: 1,000.5 is
    1 000,5. Not for text where numbers are written out on one side."""
    language: bool = False
    """Drop pairs when a side is ten times likelier in another language than in its own, swapped sides too, by py3langid
    (Lui and Baldwin, 2012): pip install nmt[langid]. It takes longer than all other steps together."""
    misaligned: bool = True
    """Drop pairs whose sides do not translate one another, alone or in runs of lines that slipped, by which words go
    together in this text itself (IBM model 1; Brown et al., 1993; Moore, 2004). Text of fewer than 4,000 pairs says
    too little of that, and keeps them."""
    duplicates: bool = True
    """Drop pairs that have been there before, in the same corpus or an earlier one."""
    near_duplicates: bool = False
    """Drop pairs that have been there before but for case, punctuation, digits and spaces."""
    overlap: Literal["warn", "drop"] = "warn"
    """What to do with pairs whose source is in the valid corpus or a test set: say so, or drop them too."""


class Data(Section):
    """The text to learn from and to be measured on."""

    source: Name
    """The language translated from, as file names end: en reads PREFIX.en."""
    target: Name
    """The language translated into, as file names end."""
    train: Annotated[tuple[Corpus, ...], BeforeValidator(_several), Field(min_length=1)]
    """Corpora to train on, each the PREFIX of two files of equal length (PREFIX.source and PREFIX.target, either
    with .gz, .xz or .zst) or one file: {tsv: FILE}, {jsonl: FILE}, {tmx: FILE} or {xliff: FILE}. Beside that key,
    or {path: PREFIX}, a corpus may have languages: [en, fr], a tag: <2fr>, and a weight: 2."""
    temperature: Annotated[float, Field(ge=1)] = 1.0
    """T: without weights, a corpus of n pairs is seen in proportion to n^(1/T) (Arivazhagan et al., 2019, who take 5).
    1 is every pair once an epoch; the higher, the more is seen of small corpora."""
    valid: Corpus
    """The corpus that progress is measured on during training."""
    test: dict[Name, Corpus] = {}
    """Corpora that `nmt score` translates and scores, each under the name it is reported by."""
    max_length: Count = 256
    """Training pairs with more subword tokens than this on either side are dropped, and counted."""
    max_ratio: Annotated[float, Field(ge=1)] = 9.0
    """Training pairs are dropped, and counted, when one side has more than this many times the tokens of the
    other: longer > max_ratio * shorter, the rule and the value of Moses' clean-corpus-n."""
    clean: Clean = Clean()
    """What else training pairs are dropped for."""

    @field_validator("target")
    @classmethod
    def _differs_from_source(cls, target: str, info: ValidationInfo) -> str:
        if target == info.data.get("source"):
            raise _clash("data.target", "data.source", "must differ from data.source", target)
        return target

    @field_validator("train")
    @classmethod
    def _all_or_none_are_weighed(cls, train: tuple[Corpus, ...]) -> tuple[Corpus, ...]:
        weights = [weight_of(corpus) for corpus in train]
        if None in weights and any(weights):
            raise _clash("data.train", "data.train", "must have a weight for each corpus or for none", weights)
        return train

    @field_validator("temperature")
    @classmethod
    def _weights_say_it_already(cls, temperature: float, info: ValidationInfo) -> float:
        if temperature != 1 and any(map(weight_of, info.data.get("train", ()))):
            must = "must be left out, for the corpora of data.train have weights"
            raise _clash("data.temperature", "data.train", must, temperature)
        return temperature

    @field_validator("train")
    @classmethod
    def _pipes_flow_once(cls, train: tuple[Corpus, ...]) -> tuple[Corpus, ...]:
        if sum(map(_is_piped, train)) > 1:
            raise _clash("data.train", "data.train", "must name standard input only once", "-")
        return train

    @field_validator("valid", "test")
    @classmethod
    def _is_there_again(cls, corpora: Any, info: ValidationInfo) -> Any:
        named = {f".{name}": corpus for name, corpus in corpora.items()} if info.field_name == "test" else {"": corpora}
        for name, corpus in named.items():
            key = f"data.{info.field_name}{name}"
            if weight := weight_of(corpus):
                raise _clash(f"{key}.weight", key, "must be left out: it is for what is trained on", weight)
            if _is_piped(corpus):
                raise _clash(key, key, "must be in a file, for training or scoring reads it again", "-")
        return corpora

    def of(self, corpus: Corpus) -> "Data":
        """The same section as it is for one of its corpora, whose languages may be others."""
        if isinstance(corpus, str) or corpus.languages is None:
            return self
        source, target = corpus.languages
        return self.model_copy(update={"source": source, "target": target})

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of all corpora, those without one left out."""
        corpora = (*self.train, self.valid, *self.test.values())
        return tuple(dict.fromkeys(tag for tag in map(tag_of, corpora) if tag))

    @property
    def longest_source(self) -> int:
        """The most tokens that a source to train on may have, its tag among them; several have spaces between."""
        return self.max_length + max((2 * len(tag.split()) - 1 for tag in self.tags), default=0)


class Tokenizer(Section):
    """The subword vocabulary, learned from the training text by SentencePiece."""

    type: Literal["bpe"] = "bpe"
    """How it is learned: byte-pair encoding (paper, 5.1), with bytes to spell what it has never seen."""
    reuse: Text | None = None
    """Where to take it from instead of learning it: a model folder, the folder of a run, or a file that SentencePiece
    has made. vocab_size may then be left out."""
    vocab_size: Annotated[int, Field(ge=300, le=1_000_000)] | None = None
    """Entries in all, of which 256 spell single bytes and 4 are special; of each side when not shared."""
    symbols: Annotated[tuple[Symbol, ...], BeforeValidator(_several)] = ()
    """Symbols that are always one token, such as [<BT>, <2de>]; the tags of corpora are so without being named here."""
    shared: bool = True
    """Whether both languages share one vocabulary (paper, 5.1)."""
    character_coverage: Annotated[float, Field(ge=0.98, le=1)] = 1.0
    """The share of characters, by frequency, that get an entry; the rest is spelled in bytes. 0.9995 suits
    Chinese and Japanese, 1.0 small alphabets."""
    split_by_unicode_script: bool = True
    """Whether letters and signs are kept apart in tokens, as suits plain text; false lets (NP be one token."""
    sample: Count = 1_000_000
    """At most this many sentences of the training text are learned from, drawn by the seed."""

    @field_validator("vocab_size")
    @classmethod
    def _has_a_size(cls, vocab_size: int | None, info: ValidationInfo) -> int | None:
        if vocab_size is None and info.data.get("reuse") is None:
            raise PydanticCustomError("missing", "must be given")
        return vocab_size


class Depths(Section):
    """Layers of the encoder and the decoder, where they differ."""

    encoder: Count
    """Layers of the encoder."""
    decoder: Count
    """Layers of the decoder."""


class Model(Section):
    """The Transformer, by default the paper's base model (paper, table 3)."""

    layers: Annotated[
        Annotated[Count, Tag("<number>")] | Annotated[Depths, Tag("<section>")],
        _chosen(_kind, "must be a whole number, or {encoder: N, decoder: N}"),
    ] = 6
    """Layers of the encoder and of the decoder: one number for both, or {encoder: 12, decoder: 3}."""
    d_model: Annotated[int, Field(ge=2, multiple_of=2)] = 512
    """Width of the states between layers; even, for sinusoidal positions come in pairs."""
    heads: Count = 8
    """Attention heads."""
    d_k: AutoCount = "auto"
    """Width of the queries and keys of a head; auto is d_model / heads (paper, 3.2.2; table 3, rows B)."""
    d_v: AutoCount = "auto"
    """Width of the values of a head; auto is d_model / heads."""
    d_ffn: Count = 2048
    """Inner width of the feed-forward layers."""
    activation: Literal["relu", "gelu", "swiglu"] = "relu"
    """Inside the feed-forward layers: relu (paper, 3.3), gelu (Hendrycks and Gimpel, 2016), or swiglu (Shazeer, 2020),
    whose gate is a third matrix: two thirds of d_ffn keep the number of parameters."""
    dropout: Rate = 0.1
    """Share of values dropped from the output of sub-layers and from embeddings plus positions (5.4)."""
    attention_dropout: Rate = 0.0
    """Share of attention weights dropped; the paper has none. On a GPU it forgoes the fastest kernel."""
    activation_dropout: Rate = 0.0
    """Share of values dropped inside the feed-forward layers, after the activation; the paper has none."""
    norm: Literal["post", "pre"] = "post"
    """Where states are normalised: after each residual sum (post; the paper), or before each sub-layer and
    once at the end (pre)."""
    norm_type: Literal["layer", "rms"] = "layer"
    """How: to mean 0 and variance 1 (layer; Ba et al., 2016, as in the paper), or to a root mean square of 1
    (rms; Zhang and Sennrich, 2019)."""
    positions: Literal["sinusoidal", "learned", "relative", "rotary", "alibi"] = "sinusoidal"
    """How a token knows its place. Added to embeddings: sines (sinusoidal; paper, 3.5), or a vector learned for each
    position (learned; table 3, row E). In self-attention: vectors learned for distances (relative; Shaw et al., 2018),
    turned queries and keys (rotary; Su et al., 2021), or scores that fall with distance (alibi; Press et al., 2022)."""
    max_positions: Count = 1024
    """How many positions are learned, where they are learned; no text can be longer."""
    max_distance: Annotated[int, Field(ge=1, le=4096)] = 16
    """Where positions are relative: the largest distance told apart; what lies farther counts as this far."""
    window: Natural = 0
    """Restricted self-attention (paper, 4): each token sees those at most half of this many tokens away, so that the
    cost grows with the length and not with its square; 0 is no restriction."""
    embeddings: Literal["shared", "decoder", "separate"] = "shared"
    """Which matrices are one: source, target and output (shared; paper, 3.4), target and output (decoder), or
    none (separate)."""

    @field_validator("d_v")
    @classmethod
    def _heads_have_a_width(cls, d_v: int | str, info: ValidationInfo) -> int | str:
        d_model, heads = info.data.get("d_model", 0), info.data.get("heads", 1)
        if d_model % heads and "auto" in (d_v, info.data.get("d_k")):
            raise _clash("model.heads", "model.d_model", f"must divide model.d_model ({d_model})", heads)
        return d_v

    @field_validator("positions")
    @classmethod
    def _what_turns_comes_in_pairs(cls, positions: str, info: ValidationInfo) -> str:
        width = info.data.get("d_k")
        if width == "auto" and "heads" in info.data and "d_model" in info.data:
            width = info.data["d_model"] // info.data["heads"]
        if positions == "rotary" and isinstance(width, int) and width % 2:
            raise _clash(
                "model.positions", "model.d_k", f"must not be rotary where heads have odd width ({width})", positions
            )
        return positions

    @property
    def key_width(self) -> int:
        """The width of a head's queries and keys."""
        return self.d_model // self.heads if self.d_k == "auto" else self.d_k

    @property
    def value_width(self) -> int:
        """The width of a head's values."""
        return self.d_model // self.heads if self.d_v == "auto" else self.d_v

    @property
    def longest(self) -> int:
        """The most tokens that a sentence may have, its EOS or BOS among them."""
        return self.max_positions if self.positions == "learned" else sys.maxsize

    @property
    def encoder_layers(self) -> int:
        """Layers of the encoder."""
        return self.layers.encoder if isinstance(self.layers, Depths) else self.layers

    @property
    def decoder_layers(self) -> int:
        """Layers of the decoder."""
        return self.layers.decoder if isinstance(self.layers, Depths) else self.layers


class Optimizer(Section):
    """What turns gradients into updates (paper, 5.3)."""

    name: Literal["adam", "muon"] = "adam"
    """Adam (Kingma and Ba, 2015); or muon (Jordan et al., 2024) for the matrices inside layers, with Adam for the rest:
    its steps are made as large as Adam's (Liu et al., 2025), so that one learning rate serves both."""
    betas: Annotated[tuple[Rate, Rate], BeforeValidator(_pair)] = (0.9, 0.98)
    """How slowly the running mean and the running variance of the gradient forget."""
    eps: Positive = 1e-9
    """Added to the root of the variance before dividing by it."""
    weight_decay: NotNegative = 0.0
    """Decoupled weight decay, a share of the learning rate (AdamW; Loshchilov and Hutter, 2019); the paper has none."""
    momentum: Rate = 0.95
    """How slowly Muon's running mean of the gradient forgets."""


class Schedule(Section):
    """How the learning rate moves from update to update (paper, 5.3)."""

    name: Literal["noam", "inverse-sqrt", "cosine", "linear", "wsd"] = "noam"
    """All rise in a line for `warmup` updates. Then noam (paper, 5.3) and inverse-sqrt fall with step^-0.5;
    cosine (Loshchilov and Hutter, 2017) and linear fall to `final` at the last update; wsd stays, and falls in the last
    `decay` of all updates (warm-up, stable, decay; Hägele et al., 2024, whose 1 - sqrt it is)."""
    warmup: Count = 4000
    """Updates until the learning rate is highest."""
    rate: AutoPositive = "auto"
    """The highest learning rate; auto, and always with noam, is the paper's: (d_model * warmup)^-0.5."""
    scale: Positive = 1.0
    """Multiplies the whole curve; 1 in the paper."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """What cosine, linear and wsd fall to, as a share of the highest rate."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2
    """The share of all updates in which wsd falls."""

    @field_validator("rate")
    @classmethod
    def _is_free(cls, rate: float | str, info: ValidationInfo) -> float | str:
        if rate != "auto" and info.data.get("name") == "noam":
            must = "must be auto for noam, whose rate follows from d_model and warmup; inverse-sqrt takes one"
            raise _clash("train.schedule.rate", "train.schedule.name", must, rate)
        return rate


class Noise(Section):
    """What training pairs are changed by, anew each time one is seen, so that the model bears it in what it translates.

    The paper has none. What is written is text: `nmt prepare` need not run again. The valid corpus stays as it is.
    """

    upper: Share = 0.0
    """Share of pairs in ALL CAPS, both sides; upper, title and lower exclude one another."""
    title: Share = 0.0
    """Share of pairs in Title Case, both sides."""
    lower: Share = 0.0
    """Share of pairs whose source is in lower case; the target stays, so that the model writes as one should."""
    no_final_punctuation: Share = 0.0
    """Share of pairs that lose the full stop, question or exclamation mark at their end, if both sides have one."""
    typos: Share = 0.0
    """Share of the source's words, of three letters and more, that are mistyped: letters swapped, left out, doubled, or
    a neighbouring key hit."""
    placeholders: Share = 0.0
    """Share of pairs with placeholders such as {0}, %s or <x1/> on both sides, instead of a number, name or address
    that is the same on both; or at an end of both, if nothing is."""
    tags: Share = 0.0
    """Share of pairs with tags such as <b>…</b> or <g id="1">…</g> on both sides, around what is the same, or all."""

    @field_validator("lower")
    @classmethod
    def _one_case_each(cls, lower: float, info: ValidationInfo) -> float:
        others = info.data.get("upper", 0.0) + info.data.get("title", 0.0)
        if lower + others > 1 + 1e-9:
            must = f"must be at most 1 less train.noise.upper and train.noise.title ({others:.15g} together)"
            raise _clash("train.noise.lower", "train.noise.upper", must, lower)
        return lower


class Lora(Section):
    """Low-rank adaptation (LoRA; Hu et al., 2021): to each matrix W inside layers α/r B A is added; only A and B learn.

    Optimizer and checkpoints hold these alone; `nmt average` merges them, and the model is one like any other.
    """

    rank: Natural = 0
    """r, the rows of A and columns of B; 0 is off, and all of the model learns. Queries, keys and values are matrices
    of their own, and so are the two halves of swiglu."""
    alpha: Positive = 16.0
    """α, which scales what is added by α/r, so that another rank needs no other learning rate."""
    dropout: Rate = 0.0
    """Share of the columns of A that are dropped, anew for each chunk, as Lin et al. (2024) drop them: a whole column
    for all tokens, where others drop inputs token by token."""
    targets: Annotated[tuple[Adapted, ...], BeforeValidator(_several), Field(min_length=1)] = ("attention", "ffn")
    """Which matrices: those of attention, those of feed-forward layers, or both."""


class Train(Section):
    """How the model learns (paper, 5)."""

    steps: Count = 100_000
    """Updates in all."""
    init: Text | None = None
    """Fine-tuning: the folder of the model whose weights training begins with; null draws them by the seed. It must
    have this recipe's model and vocabulary; of new symbols at the end of the vocabulary, rows are drawn."""
    freeze: Annotated[tuple[Frozen, ...], BeforeValidator(_several)] = ()
    """What stays as it is: embeddings (with the output projection), encoder, decoder (their layers); [] is nothing."""
    lora: Lora = Lora()
    batch_tokens: Count = 25_000
    """About this many source and this many target tokens make one update, over all GPUs (paper, 5.1)."""
    chunk_tokens: AutoCount = "auto"
    """Tokens a side that go through the model at once: sets memory and speed. The update is the same; only which
    numbers dropout picks depends on it. auto is what is fast, and on a GPU no more than finds room."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """What activations are computed in; auto takes bf16 where the device has it in hardware."""
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    bpe_dropout: Rate = 0.0
    """Share of BPE merges left out when training text is cut into subwords, anew each time a pair is seen (BPE-dropout;
    Provilkov et al., 2020); the paper has none. Helps where there is little text. A merge left out stays out, as
    SentencePiece has it; Provilkov et al. draw anew after each merge, and their 0.1 is about 0.055 here."""
    noise: Noise = Noise()
    ema: Rate = 0.0
    """Keeps a running mean of the weights that forgets this slowly, such as 0.999: it is measured, saved and averaged
    in place of the weights themselves; 0 keeps none. Of update t it takes at least 9 / (10 + t), as Marian does."""
    label_smoothing: Rate = 0.1
    """Share of each target's probability spread over the whole vocabulary (paper, 5.4)."""
    r_drop: NotNegative = 0.0
    """R-Drop's α (Liang et al., 2021): each pair goes through the model twice, and as far as dropout makes the two
    predictions differ they are drawn together. It doubles the time of an update, and helps where there is little text;
    1 to 5 is usual, 0 is off, as in the paper."""
    clip_norm: NotNegative = 0.0
    """Longer gradients are scaled down to this norm; 0 leaves them as they are, as the paper does."""
    valid_every: Count = 1000
    """Updates from one measuring of the valid corpus to the next."""
    valid_bleu: Natural = 500
    """How many sentences of the valid corpus are translated for BLEU at each measuring; 0 is none."""
    checkpoint_every: Count = 1000
    """Updates from one checkpoint to the next."""
    keep: Count = 5
    """How many of the last checkpoints are kept."""
    keep_best: Natural = 0
    """How many of the checkpoints that did best on the valid corpus are kept too."""
    best_by: Literal["bleu", "chrf", "loss"] = "bleu"
    """What the best is judged by: BLEU or chrF++ of the sentences translated, or the loss."""
    patience: Natural = 0
    """Training ends when this many measurings of the valid corpus in a row brought nothing better; 0 is never."""
    log_every: Count = 50
    """Updates from one line of progress to the next."""
    tensorboard: bool = False
    """Whether the figures of `metrics.jsonl` are written to RUN/tensorboard too; takes nmt[tensorboard]."""

    @field_validator("keep_best")
    @classmethod
    def _keeps_what_is_measured(cls, keep_best: int, info: ValidationInfo) -> int:
        valid, saved = info.data.get("valid_every", 1), info.data.get("checkpoint_every", 1)
        if keep_best and valid % saved:
            must = f"must be 0 unless train.valid_every is a multiple of train.checkpoint_every ({saved})"
            raise _clash("train.keep_best", "train.valid_every", must, keep_best)
        return keep_best

    @field_validator("patience")
    @classmethod
    def _judges_what_is_translated(cls, patience: int, info: ValidationInfo) -> int:
        by, sentences = info.data.get("best_by"), info.data.get("valid_bleu")
        if (patience or info.data.get("keep_best")) and by in ("bleu", "chrf") and sentences == 0:
            raise _clash("train.best_by", "train.valid_bleu", "must be loss, for train.valid_bleu is 0", by)
        return patience

    @field_validator("freeze")
    @classmethod
    def _leaves_something_to_learn(cls, freeze: tuple[str, ...]) -> tuple[str, ...]:
        if len({*freeze}) == 3:
            raise _clash("train.freeze", "train.freeze", "must leave something to learn", list(freeze))
        return freeze

    @field_validator("lora")
    @classmethod
    def _adapts_what_is_there(cls, lora: Lora, info: ValidationInfo) -> Lora:
        if lora.rank and "init" in info.data and info.data["init"] is None:
            must = "must be 0, or train.init must name the model that is adapted"
            raise _clash("train.lora.rank", "train.init", must, lora.rank)
        if lora.rank and {"encoder", "decoder"} <= {*info.data.get("freeze", ())}:
            must = "must be 0 where train.freeze has encoder and decoder, for then nothing is left to adapt"
            raise _clash("train.lora.rank", "train.freeze", must, lora.rank)
        return lora

    @field_validator("optimizer")
    @classmethod
    def _optimizes_what_is_whole(cls, optimizer: Optimizer, info: ValidationInfo) -> Optimizer:
        lora = info.data.get("lora")
        if lora and lora.rank and optimizer.name == "muon":
            must = "must be adam where train.lora.rank is above 0, for muon is for whole matrices"
            raise _clash("train.optimizer.name", "train.lora.rank", must, optimizer.name)
        return optimizer


class Average(Section):
    """How checkpoints become the model that translates (paper, 6.1)."""

    last: Count = 5
    """How many of the last checkpoints are averaged: 5 for base, 20 for big; at most train.keep."""
    best: Natural = 0
    """How many of the best are averaged instead of the last ones; at most train.keep_best. 0: the last ones."""


class Decode(Section):
    """How the model translates (paper, 6.1)."""

    beam: Count = 4
    """Hypotheses kept for each sentence; 1 is greedy search."""
    length_penalty: NotNegative = 0.6
    """The exponent α of the length penalty; 0 compares bare log-probabilities, more favours longer output."""
    penalty_form: Literal["gnmt", "power"] = "gnmt"
    """What divides the log-probability of an output Y: ((5 + |Y|) / 6)^α (gnmt; Wu et al., 2016, as in the
    paper) or |Y|^α (power; fairseq, Marian, Hugging Face)."""
    coverage_penalty: NotNegative = 0.0
    """The weight β of a penalty for parts of the source that no attention fell on (Wu et al., 2016, equation 14); 0 is
    off."""
    min_length: Natural = 0
    """The fewest tokens of an output, EOS not counted."""
    max_ratio: NotNegative = 1.0
    """Output stops at this times the tokens of the source, plus max_extra."""
    max_extra: Natural = 50
    """Output stops at this many tokens more than the source has, times max_ratio."""
    no_repeat_ngram: Natural = 0
    """No n tokens in a row are said twice in an output (Paulus et al., 2018); 0 is off."""
    groups: Count = 1
    """Diverse beam search (Vijayakumar et al., 2016): the beam is cut into this many groups that avoid what others
    say; 1 is beam search."""
    diversity: NotNegative = 0.5
    """What a token costs a group, in nats, for each hypothesis of the groups before it that takes it too."""
    batch_size: Count = 64
    """Sentences translated at once: sets memory and speed; in fp32 never the result."""

    @field_validator("groups")
    @classmethod
    def _groups_are_equal(cls, groups: int, info: ValidationInfo) -> int:
        if (beam := info.data.get("beam", groups)) % groups:
            raise _clash("decode.groups", "decode.beam", f"must divide decode.beam ({beam})", groups)
        return groups

    def limit(self, source: int) -> int:
        """The most tokens, EOS not counted, that the output of so many tokens may have."""
        return int(self.max_ratio * source) + self.max_extra


class Recipe(Section):
    """Everything a run does, from raw text to score."""

    run: Text
    """The folder in which everything this recipe makes lands."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    """Whatever is random follows from this number."""
    data: Data
    """The text: languages, corpora and what is dropped from them."""
    tokenizer: Tokenizer
    """The subword vocabulary; vocab_size must be given."""
    model: Model = Model()
    train: Train = Train()
    average: Average = Average()
    decode: Decode = Decode()

    @field_validator("model")
    @classmethod
    def _embeddings_have_their_vocabulary(cls, model: Model, info: ValidationInfo) -> Model:
        tokenizer = info.data.get("tokenizer")
        if model.embeddings == "shared" and tokenizer and not tokenizer.shared:
            must = "must be decoder or separate, for tokenizer.shared is false"
            raise _clash("model.embeddings", "tokenizer.shared", must, model.embeddings)
        return model

    @field_validator("model")
    @classmethod
    def _positions_suffice(cls, model: Model, info: ValidationInfo) -> Model:
        data = info.data.get("data")
        if model.positions == "learned" and data and model.max_positions <= data.longest_source:
            tagged = " and its tag" if data.tags else ""
            must = f"must be above data.max_length ({data.max_length}), for a sentence{tagged} and its end"
            raise _clash("model.max_positions", "data.max_length", must, model.max_positions)
        return model

    @field_validator("average")
    @classmethod
    def _averages_what_is_kept(cls, average: Average, info: ValidationInfo) -> Average:
        train = info.data.get("train")
        if train and average.last > train.keep:
            must = f"must be at most train.keep ({train.keep})"
            raise _clash("average.last", "train.keep", must, average.last)
        if train and average.best > train.keep_best:
            must = f"must be at most train.keep_best ({train.keep_best})"
            raise _clash("average.best", "train.keep_best", must, average.best)
        return average

    @property
    def symbols(self) -> tuple[str, ...]:
        """What every vocabulary of this recipe has as one token: those it names, then those in tags."""
        tags = (symbol for tag in self.data.tags for symbol in tag.split())
        return tuple(dict.fromkeys((*self.tokenizer.symbols, *tags)))
