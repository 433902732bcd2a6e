"""The file of a SentencePiece model, taken apart and put together again, to make one that others trained fit here.

It is a message of protocol buffers. Of sentencepiece_model.proto we know the numbers of the fields that we read or
write; all others stay as they are.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

from nmt.errors import ModelError
from nmt.ids import BOS, EOS, PAD, SPECIALS, UNK

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # the types of pieces
_UNIGRAM, BPE = 1, 2  # the types of models
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # how the value of a field is written
_PIECES, _TRAINER = 1, 2  # fields of a model
_TEXT, _SCORE, _TYPE = 1, 2, 3  # of a piece
_MODEL_TYPE, _BYTE_FALLBACK = 3, 35  # of what the trainer was told
_NAMES = {UNK: (45, "<unk>"), BOS: (46, "<s>"), EOS: (47, "</s>"), PAD: (48, "<pad>")}  # of the special pieces


class Piece(NamedTuple):
    """An entry of a vocabulary."""

    text: str
    kind: int
    score: float = 0.0


class Proto(NamedTuple):
    """A model: its vocabulary, what its trainer was told, and all else, as bytes."""

    pieces: list[Piece]
    trainer: bytes
    rest: bytes

    @classmethod
    def read(cls, model: bytes) -> Self:
        """Takes a model apart. Raises ValueError for what is none."""
        pieces, trainer, rest = [], b"", b""
        for number, value, raw in _fields(model):
            if number == _PIECES and isinstance(value, bytes):
                pieces.append(_piece(value))
            elif number == _TRAINER and isinstance(value, bytes):
                trainer += value
            else:
                rest += raw
        return cls(pieces, trainer, rest)

    def write(self) -> bytes:
        """Puts it together."""
        pieces = (_field(_PIECES, _packed(piece)) for piece in self.pieces)
        return b"".join((*pieces, _field(_TRAINER, self.trainer), self.rest))

    @property
    def is_bpe(self) -> bool:
        """Whether it goes from characters to subwords by merging pairs."""
        told = (value for number, value, _ in _fields(self.trainer) if number == _MODEL_TYPE)
        return next(told, _UNIGRAM) == BPE

    @property
    def symbols(self) -> frozenset[int]:
        """The ids of the symbols that are always one token."""
        return frozenset(number for number, piece in enumerate(self.pieces) if piece.kind == USER_DEFINED)

    def fitted(self) -> Self:
        """The same with our four special ids before all others, and 256 bytes to spell what it lacks behind them."""
        told = {number: value for number, value, _ in _fields(self.trainer)}
        names = [_name(told.get(field, default)) for _, (field, default) in sorted(_NAMES.items())]
        specials = [Piece(name, UNKNOWN if id == UNK else CONTROL) for id, name in enumerate(names)]
        others = [piece for piece in self.pieces if piece.text not in names and piece.kind != UNKNOWN]
        if told.get(_BYTE_FALLBACK):
            return self._replace(pieces=specials + others)
        spelled = [Piece(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
        texts = {piece.text for piece in spelled}
        others = [piece for piece in others if piece.text not in texts]
        # Of a field that comes twice, the last counts.
        trainer = self.trainer + _varint(_BYTE_FALLBACK << 3 | _VARINT) + _varint(1)
        return self._replace(pieces=specials + others + spelled, trainer=trainer)

    def with_symbols(self, symbols: Sequence[str]) -> Self:
        """The same with these symbols: those it has as other entries keep their ids, the rest comes at the end.

        Raises `ModelError` for one that has another meaning.
        """
        pieces, places = list(self.pieces), {piece.text: id for id, piece in enumerate(self.pieces)}
        for symbol in symbols:
            if symbol not in places:
                pieces.append(Piece(symbol, USER_DEFINED))
            elif places[symbol] < SPECIALS or pieces[places[symbol]].kind == BYTE:
                raise ModelError(f"{symbol} is special in this vocabulary: choose another symbol")
            else:
                pieces[places[symbol]] = pieces[places[symbol]]._replace(kind=USER_DEFINED)
        return self._replace(pieces=pieces)


def _name(value: int | bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _piece(message: bytes) -> Piece:
    values = {number: value for number, value, _ in _fields(message)}
    text, score, kind = values.get(_TEXT, b""), values.get(_SCORE, bytes(4)), values.get(_TYPE, NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or not isinstance(kind, int):
        raise ValueError("no piece of a vocabulary")
    return Piece(text.decode(), kind, struct.unpack("<f", score)[0])


def _packed(piece: Piece) -> bytes:
    score = _varint(_SCORE << 3 | _FIXED32) + struct.pack("<f", piece.score)
    kind = _varint(_TYPE << 3 | _VARINT) + _varint(piece.kind)
    return _field(_TEXT, piece.text.encode()) + score + (b"" if piece.kind == NORMAL else kind)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """A number in groups of seven bits, the lowest first; all bytes but the last have their highest bit set."""
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes(groups + bytes([value]))


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes, bytes]]:
    """The fields of a message: number, value, and both as they are written. Raises ValueError where it is cut short."""
    at = 0
    while at < len(message):
        begin = at
        key, at = _number(message, at)
        value: int | bytes
        if key & 7 == _VARINT:
            value, at = _number(message, at)
        else:
            size = {_FIXED32: 4, _FIXED64: 8}.get(key & 7)
            if key & 7 == _BYTES:
                size, at = _number(message, at)
            if size is None or at + size > len(message):
                raise ValueError("no message of protocol buffers")
            value, at = message[at : at + size], at + size
        yield key >> 3, value, message[begin:at]


def _number(message: bytes, at: int) -> tuple[int, int]:
    """The number that is written at a place, and where it ends."""
    value = shift = 0
    while at < len(message):
        value |= (message[at] & 127) << shift
        at += 1
        if message[at - 1] < 128:
            return value, at
        shift += 7
    raise ValueError("cut short")
