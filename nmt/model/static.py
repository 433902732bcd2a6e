"""Decoding in which nothing changes its shape or its place in memory, so that a GPU can repeat a step as a CUDA graph.

Sentences stand at N places, each with a beam of B hypotheses and a clock of its own; where one is done, another takes
its place. Keys and values stay where they were written: at each step, hypothesis b of a place writes into slot b. Its
ancestors say in which slots its past lies, and a mask hides the others; the beams of a sentence are so many queries to
the slots of all of them, which are read once.

Axes: N places, B hypotheses of each, R = N·B rows, t steps that there is room for, H heads, K width of a head, S source
tokens that there is room for, V vocabulary.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.ids import EOS, NEVER
from nmt.model.streams import Cut, sent
from nmt.model.transformer import Transformer
from nmt.model.views import Rows

LONGEST = 1024  # tokens of an output, EOS and BOS among them, that there may be room for
CHUNK = 128  # logits whose maximum is looked at first when the likeliest are sought


class StaticEngine:
    """A model made ready for static decoding on its device, with a copy of its weights in fp32 or bf16."""

    def __init__(self, model: Transformer, precision: torch.dtype = torch.float32) -> None:
        self.model = copy.deepcopy(model).eval()
        self.longest = min(LONGEST, model.config.longest)
        self.device, self.precision = model.projection.device, precision
        for module in self.model.modules():
            if isinstance(module, nn.Linear):
                module.to(precision)
        rows = F.pad(model.projection.detach(), (0, 0, 0, -len(model.projection) % CHUNK))
        self._output = rows.to(precision)
        self.vocabulary = len(model.projection)

    def computing(self) -> torch.autocast:
        """The block in which all is computed; no cast is kept, for that of a graph would be gone with it."""
        mixed = self.precision == torch.bfloat16
        return torch.autocast(self.device.type, self.precision, enabled=mixed, cache_enabled=False)

    def logits(self, states: Tensor) -> Tensor:
        """[R, V'] in fp32 of states [R, D], -inf where V' is beyond the vocabulary; not rounded to bf16 on a GPU."""
        states = states.to(self.precision)
        if states.is_cuda and self.precision == torch.bfloat16:
            logits = torch.mm(states, self._output.t(), out_dtype=torch.float32)
        else:
            with torch.autocast(self.device.type, enabled=False):
                logits = F.linear(states, self._output).float()
        logits[:, self.vocabulary :] = -torch.inf
        return logits


class StaticDecoding:
    """What is remembered at the N places of an engine."""

    def __init__(self, engine: StaticEngine, places: int, beam: int, room: int, source: int) -> None:
        """Room for outputs of so many tokens, EOS and BOS among them, and for `source` tokens of a source."""
        model, device, dtype = engine.model, engine.device, engine.precision
        config = model.config
        self.engine, self.places, self.beam, self.room, self.source = engine, places, beam, room, source
        self.clock = torch.zeros(places, dtype=torch.long, device=device)
        """[N]: how many steps the sentence at each place has behind it; whoever takes the steps moves it on."""
        self.ancestors = torch.zeros(places, beam, room, dtype=torch.long, device=device)  # slots
        self.slot = torch.arange(beam, device=device)
        self.never = torch.tensor(NEVER, device=device)
        widths = config.key_width, config.value_width
        layers, heads = model.decoder.layers, config.heads
        self.past = [  # [N, H, t, B, K]; zeros, for what is hidden must be finite nevertheless
            [torch.zeros(places, heads, room, beam, width, dtype=dtype, device=device) for width in widths]
            for _ in layers
        ]
        self.sources = [  # [N, H, S, K]
            [torch.zeros(places, heads, source, width, dtype=dtype, device=device) for width in widths] for _ in layers
        ]
        self.hidden = torch.zeros(places, 1, source, device=device)  # -inf where no token is
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._sentences: Sequence[NDArray[np.int64]] = []

    def give(self, source: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        """The sentences that `begin` numbers: a stream [T], cut into these lengths."""
        self._sentences = np.split(source, np.cumsum(lengths)[:-1])

    def begin(self, places: Tensor, sentences: Sequence[int]) -> None:
        """At these places [M] begins the translation of these sentences, of those that were given."""
        parts = [self._sentences[i] for i in sentences]
        cut = Cut.of(np.array([len(part) for part in parts]), self.engine.device)
        stream = sent(np.concatenate(parts), self.engine.device)
        model = self.engine.model
        grid = cut.grid(model.config.heads)
        with self.engine.computing():
            found = model.decoder.sources(model.encoder(stream, cut))
        for kept, new in zip(self.sources, found, strict=True):
            for rows, x in zip(kept, new, strict=True):
                rows[places, :, : cut.longest] = grid.pad(x).unflatten(0, (len(parts), -1)).to(rows.dtype)
        hidden = torch.full((len(parts), 1, self.source), -torch.inf, device=self.engine.device)
        hidden[:, 0, : cut.longest].masked_fill_(cut.filled, 0)
        self.hidden[places] = hidden
        self.clock[places] = 0

    def within(self, room: int, source: int) -> "StaticSteps":
        """The steps while no clock reaches `room` and no source that matters has more than `source` tokens."""
        return StaticSteps(self, room, source)

    def captured(self, work: Callable[[], None]) -> Callable[[], object]:
        """`work` as a CUDA graph, once it has been done; on other devices `work` itself, but done too."""
        if self.engine.device.type != "cuda":
            work()
            return work
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.engine.device):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):  # libraries set themselves up, which a graph cannot hold
                work()
                work()
            torch.cuda.current_stream().wait_stream(aside)
            # cuBLAS keeps what it works in for each stream. A graph must have its own, in the pool of this decoding:
            # that of another would be gone with it (https://github.com/pytorch/pytorch/issues/193402).
            torch._C._cuda_clearCublasWorkspaces()
            with torch.cuda.graph(graph, pool=self._pool, stream=aside):
                work()
            torch._C._cuda_clearCublasWorkspaces()
        return partial(_replayed, graph, work)


class StaticSteps:
    """`Ranking` (`nmt.search.steps`) of the hypotheses of all places; no step waits for the device, or moves memory."""

    def __init__(self, decoding: StaticDecoding, room: int, source: int) -> None:
        self._all, self._source = decoding, source
        self._ancestors = decoding.ancestors[:, :, :room]
        self._place = torch.arange(decoding.places, device=decoding.clock.device)[:, None]
        self._time = torch.arange(room, device=decoding.clock.device)

    def step(self, tokens: Tensor) -> Tensor:
        """Logits [R, V'] of what follows these tokens [R]; -inf beyond the vocabulary."""
        engine, clock, beam = self._all.engine, self._all.clock, self._all.beam
        own = self._all.slot[None, :, None].expand(len(clock), -1, 1)
        self._ancestors.scatter_(2, clock[:, None, None].expand_as(own), own)
        place = clock[:, None].expand(-1, beam).flatten()
        with engine.computing():
            decoder = engine.model.decoder
            x = decoder.embedding(tokens, place, engine.longest)
            sources = [(k[:, :, : self._source], v[:, :, : self._source]) for k, v in self._all.sources]
            histories = [partial(self._history, number) for number in range(len(sources))]
            past = Rows(self._seen(), place, engine.longest)
            states = decoder(x, past, sources, Rows(self._all.hidden[:, :, : self._source]), histories)
        return engine.logits(states)

    def best(self, tokens: Tensor, most: int, only_end: Tensor) -> tuple[Tensor, Tensor]:
        """Log p and ids [R, most] of the likeliest tokens after these [R], likeliest first; -inf where there is none.

        Where only_end [R], EOS is the only one.
        """
        logits = self.step(tokens)
        log_z = logits.logsumexp(1, keepdim=True)
        ends = torch.full((len(tokens), most), -torch.inf, device=logits.device)
        ends[:, 0] = logits[:, EOS]
        logits.index_fill_(1, self._all.never, -torch.inf)
        values, ids = _likeliest(logits, most)
        only = only_end[:, None]
        return torch.where(only, ends, values) - log_z, ids.masked_fill(only, EOS)

    def select(self, rows: Tensor, sentences: Tensor | None = None) -> None:
        """Goes on with these rows [R], each of its own place."""
        parents = rows.view(self._ancestors.shape[:2]) - self._place * self._all.beam
        self._ancestors.copy_(self._ancestors.gather(1, parents[:, :, None].expand_as(self._ancestors)))

    def _history(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes keys and values [R, H, K] of this step; gives those of all steps and slots, [N, H, t·B, K]."""
        both = []
        for rows, new in zip(self._all.past[layer], (k, v), strict=True):
            where = (self._place, slice(None), self._all.clock[:, None], self._all.slot)
            rows[where] = new.unflatten(0, (-1, self._all.beam)).to(rows.dtype)
            both.append(rows[:, :, : len(self._time)].flatten(2, 3))
        return both[0], both[1]

    def _seen(self) -> Tensor:
        """[N, B, t·B]: 0 for the slots that a hypothesis has its past in, and -inf for all others."""
        ago = self._all.clock[:, None] - self._time
        near = ago >= 0
        if window := self._all.engine.model.config.window:
            near = near & (ago <= window // 2)
        seen = (self._ancestors[:, :, :, None] == self._all.slot) & near[:, None, :, None]
        return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf).flatten(2)


def _replayed(graph: torch.cuda.CUDAGraph, work: Callable[[], None]) -> None:
    """Does what was captured of `work`, which is held on to, for the graph reads the memory of its tensors."""
    graph.replay()


def _likeliest(logits: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The most likely of logits [R, V'], and their ids, [R, most], likeliest first.

    They lie in the chunks that have the highest maxima, so that most of the logits are only looked at once.
    """
    chunks = logits.unflatten(1, (-1, CHUNK))
    which = chunks.amax(2).topk(min(most, chunks.shape[1]), dim=1).indices
    values, where = chunks.gather(1, which[:, :, None].expand(-1, -1, CHUNK)).flatten(1).topk(most, dim=1)
    return values, which.gather(1, where // CHUNK) * CHUNK + where % CHUNK
