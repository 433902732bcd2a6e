"""A trained model made larger without changing what it says: for measuring speed at the paper's sizes.

A model of the base size takes a GPU to train; one that was not trained never stops by itself. So a small one is
widened, after Net2Net (Chen et al. 2016): states, heads and inner units are copied, and what reads the copies has its
weights shared out among them at random. Layers that are added pass on what they get: the norms that stand in them are
of what is normed already, and what their sub-layers say is 0.

Axes: O, I rows and columns of a matrix.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from nmt.model.positions import Sinusoidal
from nmt.recipe import Model, Recipe


class Widening:
    """From one size to another; every width and number of the second is a multiple of the first's."""

    def __init__(self, small: Model, large: Model) -> None:
        if small.norm != "post" or small.embeddings != "shared" or small.positions != "sinusoidal":
            raise ValueError("only a post-norm model with shared embeddings and sinusoidal positions can be widened")
        self._small, self._large = small, large
        self._states = large.d_model // small.d_model
        self._draw = torch.Generator().manual_seed(1)

    def __call__(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of the large model, by name."""
        found = dict(self._embeddings(weights["encoder.embedding.table.weight"]))
        for side, deep, deeper in (
            ("encoder", self._small.encoder_layers, self._large.encoder_layers),
            ("decoder", self._small.decoder_layers, self._large.decoder_layers),
        ):
            for layer in range(deeper):
                of = f"{side}.layers.{min(layer, deep - 1)}."
                for name, weight in weights.items():
                    if name.startswith(of):
                        part = name.removeprefix(of)
                        found[f"{side}.layers.{layer}.{part}"] = self._of_layer(part, weight, layer >= deep)
            self._pass_on(found, side, deep, deeper)
        return found

    def _embeddings(self, table: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Times √D they are copies of what they were. So are the sines, which have to be learned positions then."""
        longest = self._large.max_positions
        sines = Sinusoidal(self._small.d_model)(torch.arange(longest), longest)
        yield "encoder.embedding.table.weight", table.repeat(1, self._states) / self._states**0.5
        for side in ("encoder", "decoder"):
            yield f"{side}.embedding.positions.table.weight", sines.repeat(1, self._states)

    def _of_layer(self, name: str, weight: Tensor, added: bool) -> Tensor:
        kind = name.rsplit(".", 1)[-1]
        if ".norm." in name:
            return weight.repeat(self._states)
        if "attention.inputs" in name:
            return self._reading(self._heads(weight)) if kind == "weight" else self._heads(weight)
        if "feed_forward.inner" in name:
            wide = weight.repeat(self._large.d_ffn // self._small.d_ffn, *[1] * (weight.dim() - 1))
            return self._reading(wide) if kind == "weight" else wide
        if kind == "bias":  # of what a sub-layer says
            return torch.zeros(self._large.d_model) if added else weight.repeat(self._states)
        if "attention.output" in name:
            copies = self._of_heads(torch.arange(weight.shape[1])[None].float(), self._small.value_width)[0].long()
        else:
            copies = torch.arange(weight.shape[1]).repeat(self._large.d_ffn // self._small.d_ffn)
        shared = self._shared(weight.repeat(self._states, 1)[:, copies], weight.shape[1], copies)
        return shared * 0 if added else shared

    def _heads(self, inputs: Tensor) -> Tensor:
        """The rows of the projections to queries, keys and values, with heads and their insides copied."""
        small, large = self._small, self._large
        key, value = small.heads * small.key_width, small.heads * small.value_width
        q, k, v = inputs.split([key, key, value])
        # twice as wide a head has products twice as large, and divides by √2 only
        q = q / (large.key_width / small.key_width) ** 0.5
        parts = [part.reshape(len(part), -1).t() for part in (q, k, v)]
        return torch.cat([self._of_heads(part, part.shape[1] // small.heads).t() for part in parts]).squeeze(1)

    def _of_heads(self, x: Tensor, width: int) -> Tensor:
        """x [O, H · width] for more and wider heads."""
        copies, wider = self._large.heads // self._small.heads, self._large.key_width // self._small.key_width
        heads = x.unflatten(1, (self._small.heads, width)).repeat(1, copies, wider)
        return heads.flatten(1)

    def _reading(self, weight: Tensor) -> Tensor:
        """[O, I] that read states, for states that are copied."""
        copies = torch.arange(weight.shape[1]).repeat(self._states)
        return self._shared(weight[:, copies], weight.shape[1], copies)

    def _shared(self, weight: Tensor, width: int, copies: Tensor) -> Tensor:
        """[O, I'], each weight times its share: those of the copies of one number sum to 1."""
        share = 0.5 + torch.rand(weight.shape, generator=self._draw)
        total = torch.zeros(len(weight), width).index_add_(1, copies, share)
        return weight * share / total[:, copies]

    def _pass_on(self, found: dict[str, Tensor], side: str, deep: int, deeper: int) -> None:
        """Gain and bias of the last norm go to the last layer that is added; those before it are norms and no more.

        The last norm of the decoder also undoes that the copies of states and embeddings make logits √copies larger.
        """
        last = f"{side}.layers.{deeper - 1}.around_feed_forward.norm."
        gain, bias = found[last + "weight"], found[last + "bias"]
        for layer in range(deep - 1, deeper):
            for name in list(found):
                inside = name.startswith(f"{side}.layers.{layer}.") and ".norm." in name
                if inside and (layer >= deep or "around_feed_forward" in name):
                    found[name] = torch.full_like(gain, float(name.endswith("weight")))
        scale = self._states**-0.5 if side == "decoder" else 1.0
        found[last + "weight"], found[last + "bias"] = gain * scale, bias * scale


def widened(recipe: Recipe, weights: dict[str, Tensor], large: Model) -> tuple[Recipe, dict[str, Tensor]]:
    """The recipe and the weights of a model of size `large` that says what the small one does."""
    return recipe.model_copy(update={"model": large}), Widening(recipe.model, large)(weights)
