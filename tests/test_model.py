"""The Transformer is the paper's: it agrees with torch's own, and with itself however it is run."""

import itertools

import numpy as np
import pytest
import torch
from test_variants import VOCABULARY
from test_variants import built as small
from test_variants import streams as streams_of
from torch import Tensor, nn

from nmt.errors import DataError
from nmt.model.attention import Attention
from nmt.model.cache import Decoding
from nmt.model.dropout import Dropout
from nmt.model.streams import Cut
from nmt.model.transformer import Transformer
from nmt.recipe import Depths, Model

# Parameters with a shared vocabulary of 37,000. The paper's table 3 rounds to 65 and 213 million.
PAPER = {"base": (63.1, Model()), "big": (214.2, Model(d_model=1024, heads=16, d_ffn=4096))}
LENGTHS = {"source": [5, 3, 9, 1], "target": [4, 7, 2, 1]}


def streams() -> tuple[Tensor, Cut, Tensor, Cut]:
    """Random sentences of `LENGTHS`, packed."""
    return streams_of(LENGTHS)


def sentences() -> list[tuple[Tensor, Tensor]]:
    source, _, target, _ = streams()
    return list(zip(source.split(LENGTHS["source"]), target.split(LENGTHS["target"]), strict=True))


def alone(model: Transformer, source: Tensor, target: Tensor) -> Tensor:
    """States of one pair by itself."""
    states: Tensor = model(source, Cut.of(np.array([len(source)])), target, Cut.of(np.array([len(target)])))
    return states


def copy_attention(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    theirs.in_proj_weight.data.copy_(ours.inputs.weight)
    theirs.in_proj_bias.data.copy_(ours.inputs.bias)
    theirs.out_proj.load_state_dict(ours.output.state_dict())


def torchs_own(model: Transformer) -> nn.Transformer:
    """`torch.nn.Transformer` with the weights of `model`."""
    c = model.config
    depths = c.encoder_layers, c.decoder_layers
    pre = c.norm == "pre"
    theirs = nn.Transformer(c.d_model, c.heads, *depths, c.d_ffn, 0.0, batch_first=True, norm_first=pre)
    for ours, other in ((model.encoder, theirs.encoder), (model.decoder, theirs.decoder)):
        other.norm = ours.norm  # LayerNorm for pre-norm; the paper's post-norm has none at the end
        for a, b in zip(ours.layers, other.layers, strict=True):
            copy_attention(a.self_attention, b.self_attn)
            norms = [a.around_self.norm, a.around_feed_forward.norm]
            if ours is model.decoder:
                copy_attention(a.cross_attention, b.multihead_attn)
                norms.insert(1, a.around_cross.norm)
            b.linear1.load_state_dict(a.feed_forward.inner.state_dict())
            b.linear2.load_state_dict(a.feed_forward.outer.state_dict())
            for number, norm in enumerate(norms, 1):
                getattr(b, f"norm{number}").load_state_dict(norm.state_dict())
    return theirs.eval()


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_we_compute_what_torchs_own_transformer_computes(norm: str) -> None:
    model = small(norm=norm, layers=Depths(encoder=3, decoder=2))
    theirs = torchs_own(model)
    ours = model(*streams()).split(LENGTHS["target"])
    for (source, target), states in zip(sentences(), ours, strict=True):
        fed = [
            side.embedding(ids, torch.arange(len(ids)), len(ids))[None]
            for side, ids in ((model.encoder, source), (model.decoder, target))
        ]
        future = nn.Transformer.generate_square_subsequent_mask(len(target))
        expected = theirs(*fed, tgt_mask=future)[0]
        torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", PAPER)
def test_base_and_big_have_the_size_of_the_paper(name: str) -> None:
    millions, config = PAPER[name]
    with torch.device("meta"):
        assert round(Transformer(config, 37000, 37000).parameter_count() / 1e6, 1) == millions


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_packing_and_neighbours_change_nothing(positions: str) -> None:
    model = small(positions=positions)
    packed = model(*streams()).split(LENGTHS["target"])
    for (source, target), states in zip(sentences(), packed, strict=True):
        torch.testing.assert_close(states, alone(model, source, target), atol=1e-5, rtol=1e-5)


def test_packing_changes_no_gradient() -> None:
    model = small()
    model(*streams()).square().sum().backward()
    packed = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    sum(alone(model, *pair).square().sum() for pair in sentences()).backward()
    for ours, expected in zip(packed, (p.grad for p in model.parameters()), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_no_position_sees_its_future() -> None:
    model = small()
    source, target = sentences()[1]
    before = alone(model, source, target)
    for cut in range(1, len(target)):
        changed = target.clone()
        changed[cut:] = (changed[cut:] + 1) % VOCABULARY
        after = alone(model, source, changed)
        torch.testing.assert_close(after[:cut], before[:cut])
        assert not torch.allclose(after[cut:], before[cut:])


def test_every_position_sees_the_whole_source() -> None:
    model = small()
    source, target = sentences()[2]
    before = alone(model, source, target)
    for place in range(len(source)):
        changed = source.clone()
        changed[place] = (changed[place] + 1) % VOCABULARY
        assert (alone(model, changed, target) - before).abs().amax(1).gt(1e-4).all()


@pytest.mark.parametrize(("norm", "positions"), [*itertools.product(["post", "pre"], ["sinusoidal", "learned"])])
def test_stepping_with_the_cache_is_teacher_forcing(norm: str, positions: str) -> None:
    model = small(norm=norm, positions=positions)
    source, source_cut, _, _ = streams()
    length = 40  # more than the cache first makes room for
    target = torch.randint(4, VOCABULARY, (len(source_cut.lengths), length))
    whole = model(source, source_cut, target.flatten(), Cut.of(np.full(len(target), length)))
    expected = model.logits(whole).view(len(target), length, -1)
    with torch.inference_mode():
        decoding = Decoding(model, source, source_cut)
        stepped = torch.stack([decoding.step(target[:, i]) for i in range(length)], 1)
    torch.testing.assert_close(stepped, expected, atol=1e-4, rtol=1e-4)


def test_a_decoding_goes_on_with_the_rows_and_sentences_it_is_told() -> None:
    model = small()
    source, source_cut, _, _ = streams()
    with torch.inference_mode():
        decoding = Decoding(model, source, source_cut)
        decoding.step(torch.tensor([1, 1, 1, 1]))
        decoding.select(torch.tensor([2, 2, 0, 0]), torch.tensor([2, 0]))  # two hypotheses of the sentences 2 and 0
        logits = decoding.step(torch.tensor([7, 8, 9, 7]))
    chosen = [(2, 7), (2, 8), (0, 9), (0, 7)]
    for row, (sentence, token) in zip(logits, chosen, strict=True):
        states = alone(model, sentences()[sentence][0], torch.tensor([1, token]))
        torch.testing.assert_close(row, model.logits(states)[-1], atol=1e-4, rtol=1e-4)


def test_sinusoidal_positions_are_the_papers_and_extend_to_any_length() -> None:
    model = small()
    table = model.encoder.embedding.positions(torch.arange(3000), 3000)
    for pos, i in ((0, 0), (1, 0), (7, 5), (2999, 15)):
        angle = pos / 10000 ** (2 * i / 32)
        assert table[pos, 2 * i].item() == pytest.approx(np.sin(angle), abs=1e-5)
        assert table[pos, 2 * i + 1].item() == pytest.approx(np.cos(angle), abs=1e-5)


def test_a_sentence_beyond_the_learned_positions_is_refused_in_words() -> None:
    model = small(positions="learned", max_positions=8)
    with pytest.raises(DataError, match="9 tokens is longer than the 8 learned positions"):
        alone(model, torch.full((9,), 5), torch.tensor([1]))


def test_embeddings_enter_at_the_size_of_the_position_signal() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Transformer(Model(), 1000, 1000)
    embedded = model.encoder.embedding.table.weight * model.encoder.embedding.scale
    assert embedded.std().item() == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize(("embeddings", "tables"), [("shared", 1), ("decoder", 2), ("separate", 3)])
def test_sharing_embeddings_leaves_as_many_tables_as_it_says(embeddings: str, tables: int) -> None:
    model = small(embeddings=embeddings)
    assert sum(p.shape == (VOCABULARY, 32) for p in model.parameters()) == tables


def test_dropout_thins_and_scales_by_its_probability() -> None:
    model = small(dropout=0.3).train()
    torch.manual_seed(5)
    thinned = model.encoder.embedding.dropout(torch.ones(1001, 501))
    assert (thinned == 0).float().mean().item() == pytest.approx(0.3, abs=0.003)
    assert thinned.mean().item() == pytest.approx(1.0, abs=0.005)
    assert thinned.max().item() == pytest.approx(1 / 0.7)


@pytest.mark.parametrize("p", [0.999999, 1 - 1e-9])
def test_dropout_near_one_drops_nearly_all(p: float) -> None:
    thinned = Dropout(p).train()(torch.ones(100_000))
    assert (thinned == 0).float().mean().item() > 0.999


@pytest.mark.gpu
def test_the_variable_length_kernel_agrees_with_the_padded_view() -> None:
    """Forward and backward, for heads that the kernel takes (width 8) and those that it does not (width 4)."""
    for heads in (4, 8):
        model = small(heads=heads)
        plain = on_device(model, "cpu", torch.float32)
        for ours, expected in zip(on_device(model, "cuda", torch.bfloat16), plain, strict=True):
            assert (ours - expected).norm() < 0.05 * expected.norm()


def on_device(model: Transformer, device: str, precision: torch.dtype) -> list[Tensor]:
    """The states of `streams`, and the gradient of their squares in the first layer of the encoder."""
    source, source_cut, target, target_cut = streams()
    model.to(device).zero_grad()
    cuts = [Cut.of(cut.lengths, device) for cut in (source_cut, target_cut)]
    with torch.autocast(device, precision, enabled=precision != torch.float32):
        states = model(source.to(device), cuts[0], target.to(device), cuts[1])
    states.float().square().sum().backward()
    grad = model.encoder.layers[0].self_attention.inputs.weight.grad
    return [states.detach().float().cpu(), grad.float().cpu()]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_stepping_on_a_gpu_is_teacher_forcing(precision: torch.dtype) -> None:
    model = small().cuda()
    source, source_cut, _, _ = streams()
    target = torch.randint(4, VOCABULARY, (len(source_cut.lengths), 20), device="cuda")
    cut = Cut.of(source_cut.lengths, "cuda")
    with torch.inference_mode(), torch.autocast("cuda", precision, enabled=precision != torch.float32):
        whole = model(source.cuda(), cut, target.flatten(), Cut.of(np.full(len(target), 20), "cuda"))
        expected = model.logits(whole).view(len(target), 20, -1)
        decoding = Decoding(model, source.cuda(), cut)
        stepped = torch.stack([decoding.step(target[:, i]) for i in range(20)], 1)
    assert (stepped - expected).norm() < (1e-4 if precision == torch.float32 else 0.05) * expected.norm()
