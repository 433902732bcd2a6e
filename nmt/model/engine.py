"""The engine of translation on a CPU: the same model as `nmt.model.transformer`, laid out for it.

Matrices are packed once; between their products stand the kernels of `nmt.kernels`. Nothing is padded, and nothing
that is remembered ever moves: the keys and values of a step stay where they were written, and each hypothesis knows in
which rows its past lies. A hypothesis that has ended costs nothing any more.

Axes: T source tokens, N sentences, R hypotheses, A those of them that go on, D = d_model, V vocabulary, H heads, K
width of a head's keys, W width of a row of keys and values, t tokens so far.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nmt.ids import EOS, NEVER
from nmt.kernels import Norm, Product, Rows, Seen, kernels
from nmt.model.attention import Attention
from nmt.model.layers import DecoderLayer, EncoderLayer, Residual
from nmt.model.matrices import MATRICES, Matrix
from nmt.model.streams import Cut
from nmt.model.transformer import Decoder, Encoder, Transformer
from nmt.recipe import Model

AT_ONCE = 128  # rows of logits that are made and looked at before the next, so that they do not leave the caches
ROOM = 16  # steps that there is room for at first; it doubles when it is full

View = Callable[[Tensor], Seen]
"""Takes the keys and values [R, W] of the tokens at hand; gives those that are seen."""


def why_plain(config: Model) -> str | None:
    """What in a model the engine cannot do, in words; None where it can do all."""
    return f"model.positions: {config.positions}" if config.positions in ("relative", "alibi") else None


class Engine:
    """A model made ready to translate, in fp32, bf16 or int8. It shares the model's embeddings and copies the rest."""

    def __init__(self, model: Transformer, precision: torch.dtype = torch.float32) -> None:
        config = model.config
        self.embed_source, self.embed_target = model.encoder.embedding, model.decoder.embedding
        self.encoder, self.decoder = _Stack(config, model.encoder, precision), _Stack(config, model.decoder, precision)
        # logits of some tens, rounded to bf16, would often be alike
        logits = torch.float32 if precision == torch.bfloat16 else precision
        self.output = MATRICES[logits](model.projection.detach(), None)
        self.reach = config.window // 2 if config.window else None
        self.few = kernels().few if precision == torch.int8 else 0
        """Up to how many rows a product takes as they are."""
        self.spare: list[list[_Memory]] = []  # of decodings that are over, for the next: memory that is new is slow

    @torch.inference_mode()
    def start(self, source: Tensor, cut: Cut) -> "EngineDecoding":
        """Sentences being translated: the source stream [T], encoded. Each has one hypothesis, which is empty."""
        token = _rounded(torch.arange(len(source)))
        ends = cut.offsets.long()
        begin, end = (edges.repeat_interleave(ends.diff())[token] for edges in (ends[:-1], ends[1:]))
        if self.reach is not None:
            begin, end = begin.maximum(token - self.reach), end.minimum(token + self.reach + 1)
        first, count = begin.int(), (end - begin).int()
        views: list[View] = [lambda kv: Seen(kv, count, first)] * len(self.encoder.layers)
        at = _At(cut.positions[token], cut.longest)
        states = self.encoder(self.embed_source(source[token], *at), at, views)
        sources = [layer.source(states) for layer in self.decoder.layers]
        return EngineDecoding(self, sources, cut.offsets[:-1], cut.offsets.diff())


class EngineDecoding:
    """`Ranking` of hypotheses (`nmt.search.steps`), by an engine."""

    def __init__(self, engine: Engine, sources: Sequence[Tensor], begin: Tensor, count: Tensor) -> None:
        """Of each layer the keys and values [T, W] of the source, of which sentence n has `count` [N] from `begin`."""
        self._engine, self._sources = engine, sources
        self._begin, self._count = begin, count
        self._memories = engine.spare.pop() if engine.spare else [_Memory() for _ in sources]
        self._places = torch.empty(len(begin), 0, dtype=torch.int32)  # [A, t], the rows of each one's past
        self._from = torch.arange(len(begin))  # [R], whose past each hypothesis goes on with, of the last step's A
        self._written = 0

    def __del__(self) -> None:
        for memory in self._memories:
            memory.clear()
        self._engine.spare.append(self._memories)

    def best(self, tokens: Tensor, most: int, only_end: Tensor) -> tuple[Tensor, Tensor]:
        """Log p and ids [R, most] of the likeliest tokens after these [R], likeliest first; -inf where there is none.

        Where only_end [R], EOS is the only one. For those that end with EOS there is none.
        """
        states, going = self._states(tokens)
        never, only = torch.tensor(NEVER), only_end[going]
        log_p = torch.full((len(tokens), most), -torch.inf)
        ids = torch.full((len(tokens), most), EOS)
        for begin in range(0, len(going), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            logits = self._engine.output(_part(states, part))
            log_p[going[part]], ids[going[part]] = kernels().top(logits, most, never, EOS, only[part])
        return log_p, ids

    def step(self, tokens: Tensor) -> Tensor:
        """Logits [R, V] of what follows these tokens [R]; of no meaning where that is EOS."""
        states, going = self._states(tokens)
        logits = kernels().settle(self._engine.output(states))
        if bool((tokens != EOS).all()):
            return logits[: len(tokens)]
        return logits.new_zeros(len(tokens), logits.shape[1]).index_copy_(0, going, logits)

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> None:
        """Goes on with these rows [R'], each of which knows its sentence."""
        self._from = self._from[rows]

    def _states(self, tokens: Tensor) -> tuple[Rows, Tensor]:
        """The decoder's states [A, D], and which of the hypotheses they are of; the last of these more than once."""
        length = self._places.shape[1]
        going = _rounded((tokens != EOS).nonzero()[:, 0], self._engine.few)
        parents = self._from[going]
        self._begin, self._count = self._begin[parents], self._count[parents]
        new = torch.arange(self._written, self._written + len(going), dtype=torch.int32)
        self._places = torch.cat([self._places[parents], new[:, None]], 1)
        self._written += len(going)
        self._from = torch.zeros_like(tokens).index_copy_(0, going, torch.arange(len(going)))

        reach = self._engine.reach
        past = self._places if reach is None else self._places[:, -reach - 1 :]
        seen = torch.full((len(going),), past.shape[1], dtype=torch.int32)
        views = [partial(memory.add, count=seen, index=past) for memory in self._memories]
        sources = [Seen(kv, self._count, self._begin) for kv in self._sources]
        place = torch.full_like(going, length)
        x = self._engine.embed_target(tokens[going], place, length + 1)
        return self._engine.decoder(x, _At(place, length + 1), views, sources), going


class _Memory:
    """Rows [any, W] that stay where they were put."""

    def __init__(self) -> None:
        self._rows: Tensor | None = None
        self._filled = 0

    def clear(self) -> None:
        """Forgets all rows, and keeps the room for others."""
        self._filled = 0

    def add(self, rows: Tensor, count: Tensor, index: Tensor) -> Seen:
        """All rows, these [A, W] behind the others, of which hypotheses see the first `count` [A] in `index` [A, t]."""
        before, end = self._filled, self._filled + len(rows)
        if self._rows is None or end > len(self._rows):
            more = rows.new_empty(max(2 * end, ROOM * len(rows)), rows.shape[1])
            if self._rows is not None:
                more[:before] = self._rows[:before]
            self._rows = more
        self._rows[before:end] = rows
        self._filled = end
        return Seen(self._rows, count, index=index)


class _At(NamedTuple):
    """The place of each token in its sentence, and a number above all."""

    positions: Tensor
    longest: int


class _Stack:
    """An encoder or decoder: its layers, and the norm after each of their sub-layers."""

    def __init__(self, config: Model, stack: Encoder | Decoder, precision: torch.dtype) -> None:
        self.layers = [_Layer(config, layer, precision) for layer in stack.layers]
        self._pre, self._eight = config.norm == "pre", precision == torch.int8
        norms = [_norm(part.norm) for part in stack.modules() if isinstance(part, Residual)]
        self._norms = [*norms, _norm(stack.norm)] if self._pre else norms

    def __call__(self, x: Tensor, at: _At, views: Sequence[View], sources: Sequence[Seen] = ()) -> Rows:
        """The states [R, D] of embedded tokens x [R, D], which are overwritten."""
        norms = iter(self._norms)

        def go_on(product: Product | None) -> Rows:
            return kernels().norm(x, product, next(norms), pre=self._pre, eight=self._eight)

        h: Rows = go_on(None) if self._pre else kernels().reduce(x) if self._eight else x
        for number, (layer, view) in enumerate(zip(self.layers, views, strict=True)):
            h = go_on(layer.look_back(h, at, view))
            if sources:
                h = go_on(layer.look_across(h, sources[number]))
            h = go_on(layer.feed_forward(h))
        return h


class _Layer:
    """The matrices of a layer, and what its sub-layers do with them."""

    def __init__(self, config: Model, layer: nn.Module, precision: torch.dtype) -> None:
        assert isinstance(layer, EncoderLayer | DecoderLayer)
        self._make, self._eight = MATRICES[precision], precision == torch.int8
        self._heads, self._key, self._kind = config.heads, config.key_width, config.activation
        self._rotated = layer.self_attention.core.places.rotated if config.positions == "rotary" else None
        begin = config.heads * config.key_width
        self._inputs, self._back = self._matrix(layer.self_attention.inputs), self._output(layer.self_attention)
        if isinstance(layer, DecoderLayer):
            inputs = layer.cross_attention.inputs
            self._queries, self._source = self._matrix(inputs, end=begin), self._matrix(inputs, begin)
            self._across = self._output(layer.cross_attention)
        self._inner, self._outer = self._matrix(layer.feed_forward.inner), self._matrix(layer.feed_forward.outer)

    def _matrix(self, linear: nn.Linear, begin: int = 0, end: int | None = None) -> Matrix:
        return self._make(linear.weight.detach()[begin:end], linear.bias.detach()[begin:end].contiguous())

    def _output(self, attention: Attention) -> Matrix:
        return self._matrix(attention.output)

    def source(self, states: Rows) -> Tensor:
        """Keys and values [T, W] of the encoder's states [T, D]."""
        return kernels().settle(self._source(states))

    def look_back(self, h: Rows, at: _At, view: View) -> Product:
        """Self-attention."""
        inputs = kernels().settle(self._inputs(h))
        width = self._heads * self._key
        if self._rotated is not None:
            for part in inputs[:, :width], inputs[:, width : 2 * width]:
                part.copy_(self._rotated(part.unflatten(1, (self._heads, -1)), *at).flatten(1))
        return self._back(self._attend(inputs[:, :width], view(inputs[:, width:])))

    def look_across(self, h: Rows, source: Seen) -> Product:
        """Attention to the source."""
        return self._across(self._attend(kernels().settle(self._queries(h)), source))

    def feed_forward(self, h: Rows) -> Product:
        """Equation 2."""
        return self._outer(kernels().activate(self._inner(h), self._kind, eight=self._eight))

    def _attend(self, q: Tensor, seen: Seen) -> Rows:
        return kernels().attend(q, seen, self._heads, self._key, eight=self._eight)


def _rounded(rows: Tensor, few: int = 0) -> Tensor:
    """These rows, the last repeated until their number is round: oneDNN takes milliseconds for each that is new.

    Up to `few` they stay as they are.
    """
    if len(rows) <= few:
        return rows
    step = max(8, 1 << len(rows).bit_length() >> 5)
    return torch.cat([rows, rows[-1:].expand(-len(rows) % step)])


def _norm(norm: nn.Module) -> Norm:
    if isinstance(norm, nn.LayerNorm):
        return Norm(norm.weight.detach(), norm.bias.detach(), norm.eps)
    assert isinstance(norm, nn.RMSNorm)
    assert norm.eps is not None
    return Norm(norm.weight.detach(), None, norm.eps)


def _part(rows: Rows, part: slice) -> Rows:
    """Some of the rows."""
    return rows[part] if isinstance(rows, Tensor) else rows._replace(values=rows.values[part], scale=rows.scale[part])
