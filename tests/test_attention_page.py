"""What is drawn of attention is what the forward pass computed, and the page works in a browser, offline."""

import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Shell
from torch import Tensor

from nmt import recipe as recipes
from nmt.errors import NmtError
from nmt.model.attention import Attention as Layer
from nmt.model.folder import build, save, weights_of
from nmt.model.streams import Cut
from nmt.model.transformer import Transformer
from nmt.model.watching import unfolded, watched
from nmt.recipe import Model
from nmt.report import figure
from nmt.report.attention import AXES, LONGEST, Attention, Choice, Token, look, page
from nmt.text import Tokenizer, Tokenizers, train_tokenizer
from nmt.translation import Translator
from nmt.translation.alignment import force

SOURCE = 'A </script><b>bold</b> & "quoted" $word$ 日 .'
TARGET = "Ein fettes 'Wort' <i>."
RECIPE = """
run: runs/tiny
data: {source: en, target: de, train: train, valid: valid}
tokenizer: {vocab_size: 300}
model: {layers: {encoder: 2, decoder: 3}, d_model: 32, heads: 4, d_ffn: 32, dropout: 0.0}
"""
IDS = [7, 8, 9, 10, 11, 12, 13, 14, 15], [20, 21, 22, 23, 24, 25, 26]


def small(**choices: Any) -> Transformer:
    torch.manual_seed(1)
    settings = {"layers": 2, "d_model": 32, "heads": 4, "d_ffn": 48, "dropout": 0.0} | choices
    return Transformer(Model.model_validate(settings), 40, 40).eval()


def seen_by(model: Transformer) -> dict[str, list[Tensor]]:
    with torch.inference_mode(), watched(model) as seen:
        force(model, [IDS[0]], [IDS[1]], torch.device("cpu"))
    return seen


def by_hand(layer: Layer, x: Tensor, hidden: Tensor) -> Tensor:
    """softmax(q kᵀ / √K) of states x [L, D] that look at themselves, except where `hidden` [L, L]; [H, L, L]."""
    width = x.shape[1]
    weight, bias = layer.inputs.weight, layer.inputs.bias
    q, k = ((x @ weight[a : a + width].T + bias[a : a + width]).unflatten(1, (4, -1)) for a in (0, width))
    scores = torch.einsum("qhk,shk->hqs", q, k) / math.sqrt(width // 4)
    return scores.masked_fill(hidden, -math.inf).softmax(-1)


def embedded(stack: Any, ids: list[int]) -> Tensor:
    cut = Cut.of(np.array([len(ids)]))
    x: Tensor = stack.embedding(torch.tensor(ids), cut.positions, cut.longest)
    return x


@torch.inference_mode()
def test_what_is_watched_are_the_weights_of_the_forward_pass() -> None:
    model = small()
    seen = seen_by(model)
    source, fed = embedded(model.encoder, [*IDS[0], 2]), embedded(model.decoder, [1, *IDS[1]])
    free, future = torch.zeros(10, 10, dtype=torch.bool), torch.ones(8, 8, dtype=torch.bool).triu(1)
    first = [stack.layers[0].self_attention for stack in (model.encoder, model.decoder)]
    torch.testing.assert_close(seen["encoder"][0], by_hand(first[0], source, free))
    torch.testing.assert_close(seen["decoder"][0], by_hand(first[1], fed, future))
    for kind, shape in {"encoder": (4, 10, 10), "decoder": (4, 8, 8), "cross": (4, 8, 10)}.items():
        assert [layer.shape for layer in seen[kind]] == [shape] * 2
        for layer in seen[kind]:
            torch.testing.assert_close(layer.sum(-1), torch.ones(shape[:2]))


@torch.inference_mode()
@pytest.mark.parametrize("window", [1, 2, 4, 6, 18])
def test_restricted_attention_is_unfolded(window: int) -> None:
    model = small(window=window)
    seen = seen_by(model)
    source, fed = embedded(model.encoder, [*IDS[0], 2]), embedded(model.decoder, [1, *IDS[1]])
    for kind, x in (("encoder", source), ("decoder", fed)):
        places = torch.arange(len(x))
        distance = places - places[:, None]
        hidden = (distance.abs() > window // 2) | ((distance > 0) & (kind == "decoder"))
        layer = model.get_submodule(f"{kind}.layers.0.self_attention")
        torch.testing.assert_close(unfolded(seen[kind][0], 4, len(x)), by_hand(layer, x, hidden))  # type: ignore[arg-type]


@torch.inference_mode()
def test_watching_changes_nothing_and_leaves_nothing_behind() -> None:
    model = small()
    before = force(model, [IDS[0]], [IDS[1]], torch.device("cpu"))
    with watched(model, ["cross"], lambda weights: weights.mean(0)) as seen:
        during = force(model, [IDS[0]], [IDS[1]], torch.device("cpu"))
    assert torch.equal(before, during)
    assert {kind: [layer.shape for layer in layers] for kind, layers in seen.items()} == {"cross": [(8, 10)] * 2}
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ZeroDivisionError), watched(model):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in model.modules())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, whose weights are drawn."""
    path = tmp_path_factory.mktemp("models") / "model"
    tokenizer = Tokenizer(train_tokenizer([SOURCE.replace("日", ""), TARGET], 300))
    recipe, tokenizers = recipes.loads(RECIPE), Tokenizers(tokenizer, tokenizer)
    torch.manual_seed(3)
    model = build(recipe, tokenizers)
    for name, parameter in model.named_parameters():
        if "inputs.weight" in name:  # or all would look at all alike
            parameter.data.mul_(4)
    save(path, recipe, tokenizers, weights_of(model))
    return path


@pytest.fixture(scope="module")
def attention(folder: Path) -> Attention:
    return look(folder, SOURCE, TARGET, "cpu", "fp32")


def test_tokens_and_weights_fit(attention: Attention) -> None:
    assert (attention.source, attention.target, attention.given) == (SOURCE, TARGET, True)
    assert {kind: len(layers) for kind, layers in attention.weights.items()} == {"encoder": 2, "decoder": 3, "cross": 3}
    for kind, layers in attention.weights.items():
        rows, columns = (attention.tokens[name] for name in AXES[kind])
        for layer in layers:
            assert layer.shape == (4, len(rows), len(columns))
            np.testing.assert_allclose(layer.sum(-1), 1, atol=1e-5)
    roles = {token.role for token in attention.tokens["source"]}
    assert roles == {"begins", "continues", "byte", "special"}
    assert attention.tokens["read"][1:] == attention.tokens["written"][:-1]
    assert attention.facts["recipe"] == "tiny"
    assert attention.facts["layers"] == "2 encoder, 3 decoder"


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        (" ", None, "the source is blank"),
        ("A", " ", "the translation is blank"),
        ("A " * (LONGEST + 1), None, f"at most {LONGEST} can be drawn"),
    ],
)
def test_what_cannot_be_drawn_is_told(folder: Path, source: str, target: str | None, told: str) -> None:
    with pytest.raises(NmtError, match=told):
        look(folder, source, target, "cpu")


def test_a_model_that_says_nothing_is_drawn_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Translator, "translate", lambda *_, **__: [""])
    found = look(folder, SOURCE, None, "cpu")
    assert (found.target, found.given, [token.text for token in found.tokens["written"]]) == ("", False, ["end"])
    assert page(found, Choice("cross"), "0.0")
    assert figure.draw(found, Choice("cross"), "png", print)


@pytest.fixture
def opened(browser: Any, attention: Attention, tmp_path: Path) -> Iterator[Any]:
    """The page in a browser that has no network; what it asked for and complained of must be nothing."""
    path = tmp_path / "attention.html"
    path.write_text(page(attention, Choice("encoder", 0, None), "0.0"), encoding="utf-8")
    context = browser.new_context(offline=True, viewport={"width": 1300, "height": 900})
    tab = context.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(path.as_uri())
    yield tab
    context.close()
    assert requests == [path.as_uri()]
    assert complaints == []


def shown(tab: Any, side: str) -> list[str]:
    """The numbers beside the tokens of a side, "" where there is none."""
    numbers: list[str] = tab.locator(f".lines .{side} .number").all_inner_texts()
    return numbers


def agree(shown: list[str], weights: Any) -> bool:
    return all(abs(float(text or 0) - w) < (6e-4 if text else 6e-3) for text, w in zip(shown, weights, strict=True))


def test_the_page_shows_the_numbers_of_the_layer_and_head_that_are_chosen(opened: Any, attention: Attention) -> None:
    assert "layer 1 of 2, mean of 4 heads" in opened.locator("#story").inner_text()
    opened.locator(".rows button").nth(3).hover()
    assert agree(shown(opened, "columns"), attention.weights["encoder"][0].mean(0)[3])
    for kind in ("cross", "decoder", "encoder"):
        opened.locator(f"input[name=kind][value={kind}]").check()
        opened.locator("input[name=layer][value='1']").check()
        opened.locator("input[name=head][value='2']").check()
        weights = attention.weights[kind][1][2]
        assert shown(opened, "rows") == [""] * len(weights)
        opened.locator(".rows button").nth(4).hover()
        assert agree(shown(opened, "columns"), weights[4])
        most = opened.locator("#reading .value").first.inner_text()
        assert abs(float(most) - weights[4].max()) < 6e-4
        opened.locator(".columns button").nth(1).hover()
        assert agree(shown(opened, "rows"), weights[:, 1])


def test_the_page_is_used_by_keyboard(opened: Any, attention: Attention) -> None:
    opened.locator("input[name=layer]").first.focus()
    opened.keyboard.press("ArrowRight")
    assert "layer 2 of 2" in opened.locator("#story").inner_text()
    opened.keyboard.press("Tab")
    opened.keyboard.press("ArrowRight")
    assert "head 1 of 4" in opened.locator("#story").inner_text()
    opened.keyboard.press("Tab")
    opened.keyboard.press("ArrowDown")
    weights = attention.weights["encoder"][1][0]
    assert agree(shown(opened, "columns"), weights[1])
    opened.keyboard.press("Enter")
    opened.locator("input[name=head][value='3']").check()
    assert agree(shown(opened, "columns"), attention.weights["encoder"][1][3][1])  # what was held is held
    assert opened.evaluate("location.hash") == "#kind=encoder&layer=2&head=4&row=2"
    opened.keyboard.press("Escape")
    assert set(shown(opened, "columns")) == {""}


def test_an_address_says_what_the_page_shows(opened: Any, attention: Attention) -> None:
    opened.evaluate("location.hash = '#kind=cross&layer=3&head=2&row=4'")
    opened.get_by_text("layer 3 of 3, head 2 of 4").wait_for()
    assert agree(shown(opened, "columns"), attention.weights["cross"][2][1][3])
    opened.evaluate("location.hash = '#kind=mind&layer=9&head=0&row=x&column=-1'")  # passed over
    opened.wait_for_function("document.querySelectorAll('.lines.picked').length === 0")
    assert "layer 3 of 3, head 2 of 4" in opened.locator("#story").inner_text()


def test_the_page_shows_a_cell_of_the_map_and_all_heads_at_once(opened: Any, attention: Attention) -> None:
    box = opened.locator(".map canvas").bounding_box()
    rows, columns = attention.weights["encoder"][0].shape[1:]
    opened.mouse.move(box["x"] + 2.5 * box["width"] / columns, box["y"] + 1.5 * box["height"] / rows)
    assert agree([opened.locator("#reading .value").inner_text()], [attention.weights["encoder"][0].mean(0)[1, 2]])
    opened.locator("input[name=head][value=all]").check()
    assert opened.locator(".cards .card").count() == 4
    opened.locator(".card").nth(2).locator(".rows button").nth(5).click()
    largest = [float(text) for text in opened.locator("#reading .value").all_inner_texts()]
    np.testing.assert_allclose(largest, attention.weights["encoder"][0][:, 5].max(-1), atol=6e-4)
    opened.get_by_role("button", name="Head 2").click()
    assert "head 2 of 4" in opened.locator("#story").inner_text()


def test_text_stays_text_on_light_and_dark_wide_and_narrow_pages(opened: Any, attention: Attention) -> None:
    assert opened.title() == f"Attention: {SOURCE}"
    assert opened.locator("#pair dd").all_inner_texts() == [SOURCE, TARGET]
    assert opened.locator("body b:not(#reading b), body i:not(.segments i, #reading i)").count() == 0
    texts = [text.removesuffix("\n") for text in opened.locator(".rows .text").all_inner_texts()]
    assert texts == [token.text for token in attention.tokens["source"]]
    for width, scheme in ((390, "dark"), (390, "light"), (1400, "dark")):
        opened.set_viewport_size({"width": width, "height": 800})
        opened.emulate_media(color_scheme=scheme)
        assert opened.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize(("form", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_picture_is_the_same_each_time(attention: Attention, form: str, head: bytes) -> None:
    pictures = [figure.draw(attention, Choice("decoder", 0, 1), form, print) for _ in range(2)]
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(head)


def test_a_picture_has_every_head_of_what_is_chosen(attention: Attention) -> None:
    for choice, count in ((Choice("cross"), 12), (Choice("cross", 1), 4), (Choice("cross", None, 0), 3)):
        svg = figure.draw(attention, choice, "svg", print).decode()
        assert svg.count("<!-- layer ") == count


def test_what_no_font_has_is_told_and_drawn_all_the_same(attention: Attention) -> None:
    strange = [Token("\u0378", "begins"), *attention.tokens["source"][1:]]
    told: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw(
            attention._replace(tokens=attention.tokens | {"source": strange}), Choice("cross"), "png", told.append
        )
    assert ["\u0378" in line for line in told] == [True]


def test_without_matplotlib_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(NmtError, match=r"pip install nmt\[figures\]"):
        figure.require()


def test_the_command_writes_a_page_and_says_where_and_what_was_translated(trained: Shell, tmp_path: Path) -> None:
    [translation] = trained("translate", "run/model", stdin=b"Save the file\n").lines
    done = trained("attention", "recipe.yaml", "Save the file", "--output", tmp_path / "a.html")
    assert done.lines == [str(tmp_path / "a.html")]
    assert done.err == f"translation: {translation}\n"
    done = trained("attention", "run/model", "Save the file", "Datei", "--output", tmp_path / "b.svg", "--head", 2)
    assert done.err == ""
    assert (tmp_path / "b.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--output", "a.gif"], "a.gif: name a file that ends in .html, .png, .svg or .pdf: that says what is written"),
        (["--output", "run"], "run: cannot be written: this is a folder: name a file"),
        (["--layer", "2"], "--layer 2: the decoder of this model has the layers 1 to 1"),
        (["--head", "3"], "--head 3: this model has the heads 1 to 2"),
    ],
)
def test_what_the_command_cannot_do_is_told(trained: Shell, options: list[str], told: str) -> None:
    assert trained.fails("attention", "run/model", "Save the file", "Datei", *options) == told
