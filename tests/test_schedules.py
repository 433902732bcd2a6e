"""The learning rate moves as the paper says, and as other libraries have it where the paper says nothing."""

from typing import Any

import pytest
import torch
import transformers

from nmt import recipe as recipes
from nmt.recipe import Recipe
from nmt.training.schedule import learning_rate

NAMES = ("noam", "inverse-sqrt", "cosine", "linear", "wsd")


def scheduled(**schedule: Any) -> Recipe:
    changes = [f"train.schedule.{key}={value}" for key, value in schedule.items()]
    return recipes.load("recipes/wmt14-en-de-base.yaml", ["train.steps=1000", *changes])


def test_the_learning_rate_is_the_papers() -> None:
    recipe = recipes.load("recipes/wmt14-en-de-base.yaml")
    assert learning_rate(recipe, 1) == pytest.approx(512**-0.5 * 4000**-1.5)
    assert learning_rate(recipe, 4000) == pytest.approx(6.987712e-4)  # the highest: (512 * 4000)^-0.5
    assert learning_rate(recipe, 100_000) == pytest.approx((512 * 100_000) ** -0.5)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("inverse-sqrt", lambda o: transformers.get_inverse_sqrt_schedule(o, 100)),
        ("linear", lambda o: transformers.get_linear_schedule_with_warmup(o, 100, 1000)),
        ("cosine", lambda o: transformers.get_cosine_schedule_with_warmup(o, 100, 1000)),
        ("wsd", lambda o: transformers.get_wsd_schedule(o, 100, 200, num_training_steps=1000, decay_type="1-sqrt")),
    ],
)
def test_each_schedule_is_what_another_library_makes_of_it(name: str, theirs: Any) -> None:
    recipe = scheduled(name=name, warmup=100, rate=0.01)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    schedule = theirs(optimizer)
    for step in range(1, 1001):
        optimizer.step()
        schedule.step()
        assert learning_rate(recipe, step) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12), step


@pytest.mark.parametrize("name", NAMES)
def test_every_schedule_rises_to_the_papers_peak_unless_told_another(name: str) -> None:
    recipe = scheduled(name=name, warmup=100, scale=3.0)
    peak = 3 * (512 * 100) ** -0.5
    rates = [learning_rate(recipe, step) for step in range(1, 1001)]
    assert max(rates) == rates[99] == pytest.approx(peak)
    assert rates[49] == pytest.approx(peak / 2)
    assert rates[-1] == pytest.approx(peak * (0.1**0.5 if name in ("noam", "inverse-sqrt") else 0))


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd"])
def test_what_falls_to_an_end_falls_to_the_final_share(name: str) -> None:
    recipe = scheduled(name=name, warmup=100, rate=0.01, final=0.1)
    assert learning_rate(recipe, 1000) == pytest.approx(0.001)
