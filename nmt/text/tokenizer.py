"""Subword tokens: learning a vocabulary from text, text to ids and ids to text."""

import io
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import sentencepiece

from nmt.errors import DataError, ModelError
from nmt.files import whole_file
from nmt.ids import BOS, EOS, PAD, SPECIALS, UNK
from nmt.text.normalise import SPACE_OF_SENTENCEPIECE, one_line
from nmt.text.proto import BYTE, Proto
from nmt.text.sampling import reservoir

LONGEST_SAMPLE = 4096  # characters of a line to learn from, so that long lines do not fill the memory
_PROBE = "\U0010fffd"  # a private character, in no vocabulary: it has to be spelled in bytes
SEEDS = 2**32 - 1  # SentencePiece takes 32 bits, but passes over the largest number
_WORDS, _LETTERS = 1 << 18, 1 << 22  # what is remembered at most, before a block: 60 MB
_SHARED, _SOURCE, _TARGET = "tokenizer.model", "tokenizer.source.model", "tokenizer.target.model"


class Tokenizer:
    """A vocabulary of subwords. Whatever it lacks it spells in bytes, so no text is unknown to it.

    `Tokenizer(model)` takes what `train_tokenizer` gives; `name` is what errors call it. Raises `ModelError`.
    """

    def __init__(self, model: bytes, name: str = "tokenizer") -> None:
        self.model = model
        self._known: dict[str, bytes] = {}  # the ids of words
        self._letters = 0  # of those words
        self._processor = sentencepiece.SentencePieceProcessor()
        broken = ModelError(f"{name}: not a tokenizer of nmt, or cut short: copy or make it again")
        if not model:
            raise broken
        try:
            self._processor.load_from_serialized_proto(model)
        except RuntimeError:
            raise broken from None
        if not self._is_ours():
            raise broken

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The tokenizer in a file. Raises `ModelError` where it is missing or damaged."""
        try:
            return cls(Path(path).read_bytes(), str(path))
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None

    @classmethod
    def fitted(cls, path: str | Path, symbols: Sequence[str] = ()) -> Self:
        """A tokenizer made of the one in a file, ours or any of SentencePiece, with `symbols` that are one token each.

        Its special tokens get the ids that they have here; where it has no bytes to spell what it lacks, it gets them;
        and the symbols that it lacks come last. Of ours, all else keeps its id. Raises `ModelError`.
        """
        try:
            model = Path(path).read_bytes()
            proto = Proto.read(model)
            sentencepiece.SentencePieceProcessor().load_from_serialized_proto(model)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
        except (ValueError, RuntimeError):
            raise ModelError(f"{path}: not a model of SentencePiece, or cut short: name its .model file") from None
        try:
            found = cls(model, str(path))
        except ModelError:
            proto = proto.fitted()
            found = cls(proto.write(), str(path))
        if lacking := set(symbols) - set(found.symbols):
            added = [symbol for symbol in symbols if symbol in lacking]
            found = cls(proto.with_symbols(added).write(), str(path))
        return found

    @property
    def vocab_size(self) -> int:
        """The number of tokens: ids go from 0 to one less."""
        return int(self._processor.vocab_size())

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of each line, made `one_line` first, without BOS and EOS; a blank line has none."""
        return self._cut([one_line(line) for line in lines])

    @property
    def symbols(self) -> list[str]:
        """The symbols that are one token each, wherever they stand in text."""
        return self.pieces(sorted(self._proto.symbols))

    def added_to(self, path: str | Path) -> str:
        """What `fitted` has added to the model in a file, in words; nothing if it is as it was."""
        before = {piece.text for piece in Proto.read(Path(path).read_bytes()).pieces}
        added = [piece for piece in self._proto.pieces if piece.text not in before]
        spelled = sum(piece.kind == BYTE for piece in added)
        bytes_ = [f"{spelled} bytes, for it could not spell what it lacks"] if spelled else []
        return ", ".join([*bytes_, *(piece.text for piece in added if piece.kind != BYTE)])

    @property
    def is_bpe(self) -> bool:
        """Whether it cuts by byte-pair encoding, as ours do, and not by a unigram model."""
        return self._proto.is_bpe

    @cached_property
    def _proto(self) -> Proto:
        return Proto.read(self.model)

    @cached_property
    def _before_symbol(self) -> tuple[list[int], frozenset[int]]:
        """The space that SentencePiece puts before a symbol at the beginning of a line; and the symbols."""
        symbols = self._proto.symbols
        begin = self._processor.encode(self._processor.id_to_piece(min(symbols)))[:-1] if symbols else []
        return begin, symbols

    def _begun(self, sequences: list[list[int]]) -> list[list[int]]:
        """The same lines, but a symbol that begins one is its first token."""
        space, symbols = self._before_symbol
        if not space:
            return sequences
        n = len(space)
        return [ids[n:] if len(ids) > n and ids[n] in symbols and ids[:n] == space else ids for ids in sequences]

    def packed(self, lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """What `encode` gives of lines that are `one_line`, laid end to end, and the number of ids of each line.

        Words are remembered with their ids, which takes a quarter of the time. The ids are of the smallest type that
        holds them all: they fill the disk, and the memory of workers.
        """
        if len(self._known) > _WORDS or self._letters > _LETTERS:
            self._known.clear()
            self._letters = 0
        kind = np.dtype(np.uint16 if self.vocab_size <= 1 << 16 else np.uint32)
        between = " " if self._by_words else "\n"
        words = between.join(lines).split(between)
        unknown = list({*words}.difference(self._known))
        self._letters += sum(map(len, unknown))
        for word, ids in zip(unknown, self._cut(unknown), strict=True):
            self._known[word] = np.array(ids, kind).tobytes()
        known = [self._known[word] for word in words]
        counts = np.fromiter((line.count(between) + 1 for line in lines), np.intp, len(lines))
        sizes = np.fromiter(map(len, known), np.int32, len(known)) // np.int32(kind.itemsize)
        return np.frombuffer(b"".join(known), kind), np.add.reduceat(sizes, np.cumsum(counts) - counts)

    def _cut(self, lines: Sequence[str]) -> list[list[int]]:
        return self._begun(self._processor.encode(lines, num_threads=1))

    @cached_property
    def _by_words(self) -> bool:
        """Whether a line is its words, each cut by itself: no token reaches into a second word, and all begin alike."""
        apart = not any(SPACE_OF_SENTENCEPIECE in piece[1:] for piece in self.pieces(range(self.vocab_size)))
        first, second, both = self._cut(["a", "b", "a b a"])
        return apart and both == first + second + first and not self._proto.symbols

    def resample(self, sequences: Sequence[Sequence[int]], dropout: float, seed: int) -> list[list[int]]:
        """The same texts cut anew, each merge of BPE left out with probability `dropout`; `seed` is below `SEEDS`.

        A function of its arguments, by one release of SentencePiece. Symbols stay whole. A merge that is left out stays
        out; the paper (Provilkov et al., 2020) draws for all merges again after each one, so that its 0.1 is about
        0.055 here.
        """
        # A batch runs in a new thread, and there the generator begins with the seed.
        sentencepiece.set_random_generator_seed(seed)
        ids: list[list[int]] = self._processor.encode(
            self.decode(sequences), enable_sampling=True, alpha=dropout, nbest_size=-1, num_threads=1
        )
        return self._begun(ids)

    def decode(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence of ids: one line, whatever bytes they spell. Special ids have no text."""
        plain = [[int(token) for token in ids if token >= SPECIALS] for ids in sequences]
        return [one_line(text) for text in self._processor.decode(plain, num_threads=1)]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The written form of each token: "▁" begins a word, <0xE2> is a byte, <s> is special."""
        return [self._processor.id_to_piece(int(token)) for token in ids]

    def _is_ours(self) -> bool:
        """Whether the special tokens are where we expect them, and what is unknown is spelled in bytes."""
        model = self._processor
        specials = (model.pad_id(), model.bos_id(), model.eos_id(), model.unk_id())
        return specials == (PAD, BOS, EOS, UNK) and UNK not in model.encode(_PROBE)


class Tokenizers(NamedTuple):
    """The tokenizers of the two sides, which are one and the same where the vocabulary is shared."""

    source: Tokenizer
    target: Tokenizer

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Those in a folder: tokenizer.model, or tokenizer.source.model and tokenizer.target.model.

        Raises `ModelError` where they are missing or damaged.
        """
        folder = Path(folder)
        if (folder / _SOURCE).exists() or (folder / _TARGET).exists():
            return cls(Tokenizer.load(folder / _SOURCE), Tokenizer.load(folder / _TARGET))
        shared = Tokenizer.load(folder / _SHARED)
        return cls(shared, shared)

    @classmethod
    def fitted(cls, files: Sequence[Path], symbols: Sequence[str] = ()) -> Self:
        """Those made of one file for both sides, or of one for each, as `Tokenizer.fitted` has it."""
        made = [Tokenizer.fitted(file, symbols) for file in files]
        return cls(made[0], made[-1])

    def save(self, folder: str | Path) -> None:
        """Writes them into a folder, for `load`. Raises `OutputError`."""
        names = {_SHARED: self.source} if self.shared else {_SOURCE: self.source, _TARGET: self.target}
        for name, tokenizer in names.items():
            with whole_file(Path(folder) / name) as file:
                file.write(tokenizer.model)

    @property
    def models(self) -> tuple[bytes, bytes]:
        """What makes them: two pairs of tokenizers with equal models are equal."""
        return self.source.model, self.target.model

    @property
    def shared(self) -> bool:
        """Whether both sides have one vocabulary."""
        return self.source.model == self.target.model


def train_tokenizer(
    lines: Iterable[str],
    vocab_size: int,
    *,
    character_coverage: float = 1.0,
    split_by_unicode_script: bool = True,
    sample: int = 1_000_000,
    seed: int = 1,
    symbols: Sequence[str] = (),
) -> bytes:
    """A SentencePiece BPE model of exactly `vocab_size` tokens, learned from at most `sample` of the lines.

    `symbols` are one token each, wherever they stand in text.
    The same lines and settings give the same bytes. Memory grows with `sample`, not with the lines.
    Raises `DataError` for text without a word, and for a vocabulary too large or too small for the text.
    """
    drawn = (one_line(line[:LONGEST_SAMPLE]) for line in reservoir(lines, sample, seed))
    texts = [line for line in drawn if line]
    if not texts:
        raise DataError("there is no text to learn a vocabulary from: every line is blank")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            split_by_unicode_script=split_by_unicode_script,
            byte_fallback=True,
            normalization_rule_name="identity",  # one_line has done it, and decoding must give it back
            max_sentence_length=8 * LONGEST_SAMPLE,  # in bytes; longer ones would be left out
            pad_id=PAD,
            bos_id=BOS,
            eos_id=EOS,
            unk_id=UNK,
            user_defined_symbols=list(symbols),
            num_threads=1,  # is written into the model: the number of cores must not change its bytes
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _mend(str(error), vocab_size) from None
    return model.getvalue()


def tokenizer_files(path: str | Path) -> tuple[Path, ...]:
    """The tokenizer files that are meant by a file, a model folder, or the folder of a run: one, or one for each side.

    Raises `ModelError` where there is none.
    """
    named = Path(path)
    if named.is_file():
        return (named,)
    for folder in (named, named / "model", named / "data"):
        for names in ((_SOURCE, _TARGET), (_SHARED,)):
            if all((folder / name).is_file() for name in names):
                return tuple(folder / name for name in names)
    what = "there is no tokenizer in it, nor in its model or data" if named.exists() else "no such file or folder"
    raise ModelError(f"{path}: {what}: name a model folder, the folder of a run, or a .model file of SentencePiece")


def _mend(message: str, vocab_size: int) -> DataError:
    """What SentencePiece complains of, in the words of the recipe."""
    if largest := re.search(r"Vocabulary size too high.*<= (\d+)", message):
        return DataError(
            f"tokenizer.vocab_size: must be at most {int(largest[1])} for so little text, found {vocab_size}"
        )
    if smallest := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return DataError(
            f"tokenizer.vocab_size: must be at least {int(smallest[1])} to hold every character of the text, "
            f"found {vocab_size}; or lower tokenizer.character_coverage to spell the rare ones in bytes"
        )
    return DataError(f"no vocabulary could be learned from the text: {message}")
