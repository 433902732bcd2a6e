"""What the benchmark of decoding measures is the model that it was made from."""

import sys
from pathlib import Path

import numpy as np
import torch

from nmt.model.streams import Cut
from nmt.model.transformer import Transformer
from nmt.recipe import Depths, Model

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from as_marian import marian
from widening import Widening

SIZES = {"layers": Depths(encoder=2, decoder=1), "d_model": 16, "heads": 2, "d_ffn": 24, "dropout": 0.0}
LARGER = {"layers": 3, "d_model": 64, "heads": 4, "d_ffn": 96, "positions": "learned", "max_positions": 32}


def test_a_model_made_wider_and_deeper_says_what_it_said() -> None:
    torch.manual_seed(1)
    small, large = Model.model_validate(SIZES), Model.model_validate({**SIZES, **LARGER})
    model = Transformer(small, 30, 30).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    wide = Transformer(large, 30, 30).eval()
    found = Widening(small, large)(weights)
    assert found.keys() == dict(wide.named_parameters()).keys()
    for name, parameter in wide.named_parameters():
        parameter.data = found[name]
    cuts = Cut.of(np.array([5, 9])), Cut.of(np.array([7, 3]))
    source, target = torch.randint(4, 30, (14,)), torch.randint(4, 30, (10,))
    with torch.inference_mode():
        ours, theirs = (one.logits(one(source, cuts[0], target, cuts[1])) for one in (model, wide))
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)
    assert ours.std() > 0.3


def test_hugging_face_s_marian_with_its_weights_says_what_it_says() -> None:
    torch.manual_seed(2)
    model = Transformer(Model.model_validate({**SIZES, **LARGER}), 30, 30).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    theirs = marian(model.config, {name: parameter.detach() for name, parameter in model.named_parameters()})
    source, target = torch.randint(4, 30, (9,)), torch.randint(4, 30, (6,))
    with torch.inference_mode():
        ours = model.logits(model(source, Cut.of(np.array([9])), target, Cut.of(np.array([6]))))
        found = theirs(input_ids=source[None], decoder_input_ids=target[None]).logits[0]
    torch.testing.assert_close(found, ours, rtol=1e-3, atol=1e-3)
