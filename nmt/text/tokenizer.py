"""Subword tokens: learning a vocabulary from text, text to ids and ids to text."""

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import sentencepiece

from nmt.errors import DataError, ModelError
from nmt.files import whole_file
from nmt.ids import BOS, EOS, PAD, SPECIALS, UNK
from nmt.text.normalise import one_line
from nmt.text.sampling import reservoir

LONGEST_SAMPLE = 4096  # characters of a line to learn from, so that long lines do not fill the memory
_PROBE = "\U0010fffd"  # a private character, in no vocabulary: it has to be spelled in bytes
SEEDS = 2**32 - 1  # SentencePiece takes 32 bits, but passes over the largest number
_SHARED, _SOURCE, _TARGET = "tokenizer.model", "tokenizer.source.model", "tokenizer.target.model"


class Tokenizer:
    """A vocabulary of subwords. Whatever it lacks it spells in bytes, so no text is unknown to it.

    `Tokenizer(model)` takes what `train_tokenizer` gives; `name` is what errors call it. Raises `ModelError`.
    """

    def __init__(self, model: bytes, name: str = "tokenizer") -> None:
        self.model = model
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

    @property
    def vocab_size(self) -> int:
        """The number of tokens: ids go from 0 to one less."""
        return int(self._processor.vocab_size())

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of each line, made `one_line` first, without BOS and EOS; a blank line has none."""
        cleaned = [one_line(line) for line in lines]
        ids: list[list[int]] = self._processor.encode(cleaned, num_threads=1)
        return ids

    def resample(self, sequences: Sequence[Sequence[int]], dropout: float, seed: int) -> list[list[int]]:
        """The same texts cut anew, each merge of BPE left out with probability `dropout`; `seed` is below `SEEDS`.

        A function of its arguments, by one release of SentencePiece. A merge that is left out stays out; the paper
        (Provilkov et al., 2020) draws for all merges again after each one, so that its 0.1 is about 0.055 here.
        """
        # A batch runs in a new thread, and there the generator begins with the seed.
        sentencepiece.set_random_generator_seed(seed)
        ids: list[list[int]] = self._processor.encode(
            self.decode(sequences), enable_sampling=True, alpha=dropout, nbest_size=-1, num_threads=1
        )
        return ids

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

    def save(self, folder: str | Path) -> None:
        """Writes them into a folder, for `load`. Raises `OutputError`."""
        names = {_SHARED: self.source} if self.shared else {_SOURCE: self.source, _TARGET: self.target}
        for name, tokenizer in names.items():
            with whole_file(Path(folder) / name) as file:
                file.write(tokenizer.model)

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
) -> bytes:
    """A SentencePiece BPE model of exactly `vocab_size` tokens, learned from at most `sample` of the lines.

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
            num_threads=1,  # is written into the model: the number of cores must not change its bytes
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _mend(str(error), vocab_size) from None
    return model.getvalue()


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
