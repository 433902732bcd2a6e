"""The engine of translation on a CPU: the same model as `nmt.model.transformer`, laid out for it.

Matrices are packed once; between their products stand the kernels of `nmt.kernels`. Nothing is padded, and nothing
that is remembered of a hypothesis moves: the keys and values of a step stay where they were written, and each
hypothesis knows in which rows its past lies. One that has ended costs nothing any more, rows that nobody sees are
written again, and sentences may come in while others are under way.

Axes: T source tokens, N sentences, R hypotheses, A those of them that go on, D = d_model, V vocabulary, H heads, K
width of a head's keys, W width of a row of keys and values, t tokens so far of the longest.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        self.spare: list[_Memory] = []  # of decodings that are over, for the next: memory that is new is slow

    def start(self, source: Tensor, cut: Cut) -> "EngineDecoding":
        """Sentences being translated: the source stream [T], encoded. Each has one hypothesis, which is empty."""
        decoding = self.wait(source, cut)
        decoding.join(cut.sentences)
        return decoding

    def wait(self, source: Tensor, cut: Cut) -> "EngineDecoding":
        """Sentences that are to be translated, the source stream [T]; none of them is under way yet."""
        return EngineDecoding(self, source, cut)

    @torch.inference_mode()
    def encode(self, source: Tensor, cut: Cut) -> list[Tensor]:
        """The keys and values [T, W] that each layer of the decoder takes from the source stream [T]."""
        token = _rounded(torch.arange(len(source)))
        ends = cut.offsets.long()
        begin, end = (edges.repeat_interleave(ends.diff())[token] for edges in (ends[:-1], ends[1:]))
        if self.reach is not None:
            begin, end = begin.maximum(token - self.reach), end.minimum(token + self.reach + 1)
        first, count = begin.int(), (end - begin).int()
        views: list[View] = [lambda kv: Seen(kv, count, first)] * len(self.encoder.layers)
        at = _At(cut.positions[token], cut.longest)
        states = self.encoder(self.embed_source(source[token], *at), at, views)
        return [layer.source(states)[: len(source)] for layer in self.decoder.layers]


class _Pasts(NamedTuple):
    """What A hypotheses stand on, in int32: the tokens of their source, and the rows that hold their own."""

    begin: Tensor
    """[A]: the first token of the source."""
    size: Tensor
    """[A]: how many there are."""
    length: Tensor
    """[A]: how many tokens each hypothesis has."""
    rows: Tensor
    """[A, t]: where their keys and values lie; of no meaning beyond its length."""

    @classmethod
    def none(cls, begin: Tensor, size: Tensor) -> "_Pasts":
        """Those of empty hypotheses, with these sources."""
        return cls(begin, size, torch.zeros_like(size), size.new_empty(len(size), 0))

    def of(self, which: Tensor) -> "_Pasts":
        """Those of some hypotheses."""
        return _Pasts._make(each[which] for each in self)

    def before(self, others: "_Pasts") -> "_Pasts":
        """These, and the others behind them."""
        most = max(self.rows.shape[1], others.rows.shape[1])
        pairs = zip((*self[:3], self._wide(most)), (*others[:3], others._wide(most)), strict=True)
        return _Pasts._make(map(torch.cat, pairs))

    def grown(self, new: Tensor) -> "_Pasts":
        """Each with one more token, in row new [A]."""
        rows = self._wide(int(self.length.max()) + 1).scatter(1, self.length.long()[:, None], new[:, None])
        return self._replace(length=self.length + 1, rows=rows)

    def last(self, most: int | None) -> tuple[Tensor, Tensor]:
        """The rows of the last tokens of each, at most so many, and how many they are."""
        if most is None or self.rows.shape[1] <= most:
            return self.rows, self.length
        place = (self.length - most).clamp_min(0)[:, None] + torch.arange(most)
        return self.rows.gather(1, place), self.length.clamp_max(most)

    def held(self) -> Tensor:
        """All rows that hold a token; those that several have more than once."""
        return self.rows[torch.arange(self.rows.shape[1]) < self.length[:, None]]

    def _wide(self, most: int) -> Tensor:
        return F.pad(self.rows, (0, most - self.rows.shape[1]))  # cuts off what is beyond


class EngineDecoding:
    """`Joining` hypotheses (`nmt.search.steps`), by an engine."""

    def __init__(self, engine: Engine, source: Tensor, cut: Cut) -> None:
        """None of these sentences, the stream [T], is under way yet."""
        self._engine, self._waiting, self._lengths = engine, source, cut.lengths
        self._sources: list[Tensor] = []  # of each layer the keys and values [T, W] of all sentences under way
        nothing = torch.empty(0, dtype=torch.int32)
        self._pasts = _Pasts.none(nothing, nothing)
        self._from = nothing.long()  # [R], whose past each hypothesis goes on with, of those A of the last step
        self._memory = engine.spare.pop() if engine.spare else _Memory(len(engine.decoder.layers))

    def __del__(self) -> None:
        self._memory.clear()
        self._engine.spare.append(self._memory)

    def join(self, count: int) -> None:
        """Encodes the next so many of the sentences; each has one hypothesis, empty, whose row is behind the others."""
        lengths, self._lengths = self._lengths[:count], self._lengths[count:]
        tokens, cut = int(lengths.sum()), Cut.of(lengths)
        stream, self._waiting = self._waiting[:tokens], self._waiting[tokens:]
        sources, begin = self._engine.encode(stream, cut), cut.offsets[:-1]
        pasts = self._pasts.of(self._from)
        if len(self._from):
            under_way, pasts = _closed_up(pasts)
            begin = begin + len(under_way)
            pairs = zip(self._sources, sources, strict=True)
            sources = [torch.cat([old[under_way], new]) for old, new in pairs]
        self._sources, self._pasts = sources, pasts.before(_Pasts.none(begin, cut.offsets.diff()))
        self._from = torch.arange(len(self._pasts.begin))

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
        going = _rounded((tokens != EOS).nonzero()[:, 0], self._engine.few)
        pasts = self._pasts.of(self._from[going])
        new = self._memory.room(len(going), pasts)
        self._pasts = pasts = pasts.grown(new)
        self._from = torch.zeros_like(tokens).index_copy_(0, going, torch.arange(len(going)))

        reach = self._engine.reach
        index, seen = pasts.last(None if reach is None else reach + 1)
        layers = range(len(self._sources))
        views = [partial(self._memory.add, layer, new.long(), count=seen, index=index) for layer in layers]
        sources = [Seen(kv, pasts.size, pasts.begin) for kv in self._sources]
        at = _At(pasts.length.long() - 1, pasts.rows.shape[1])
        return self._engine.decoder(self._engine.embed_target(tokens[going], *at), at, views, sources), going


def _closed_up(pasts: _Pasts) -> tuple[Tensor, _Pasts]:
    """Which of all sources' tokens are of these hypotheses; and these, as they find them when the others are gone."""
    begin, which = pasts.begin.unique(return_inverse=True)
    size = torch.empty_like(begin).scatter_(0, which, pasts.size)
    moved = size.cumsum(0, dtype=torch.int32) - size
    tokens = torch.arange(int(size.sum())) + (begin - moved).repeat_interleave(size)
    return tokens, pasts._replace(begin=moved[which])


class _Memory:
    """Keys and values of all layers, in rows [any, W] that stay where they were put while anybody sees them."""

    def __init__(self, layers: int) -> None:
        self._layers = [torch.empty(0, 0)] * layers
        self.rows = 0
        """That there is room for in each layer, at the latest when it is next added to."""
        self._free = torch.empty(0, dtype=torch.int32)

    def clear(self) -> None:
        """Forgets all rows, and keeps the room for others."""
        self._free = torch.arange(self.rows, dtype=torch.int32)

    def room(self, count: int, pasts: _Pasts) -> Tensor:
        """So many rows [A] that none of these pasts holds, for what is new."""
        if len(self._free) < count:
            free = torch.ones(self.rows, dtype=torch.bool).index_fill_(0, pasts.held().long(), False)
            before = self.rows
            if int(free.sum()) < max(count, before // 4):  # else it would soon have to be looked for again
                self.rows = max(2 * before, ROOM * count)
            self._free = torch.cat([free.nonzero()[:, 0].int(), torch.arange(before, self.rows, dtype=torch.int32)])
        taken, self._free = self._free[:count], self._free[count:]
        return taken

    def add(self, layer: int, new: Tensor, rows: Tensor, count: Tensor, index: Tensor) -> Seen:
        """All rows of a layer, with these [A, W] as those of numbers `new` [A]; `count` [A] of `index` are seen."""
        held = self._layers[layer]
        if len(held) < self.rows:
            self._layers[layer] = rows.new_empty(self.rows, rows.shape[1])
            if len(held):
                self._layers[layer][: len(held)] = held
        self._layers[layer].index_copy_(0, new, rows)
        return Seen(self._layers[layer], count, index=index)


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
