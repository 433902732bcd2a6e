"""How the learning rate moves."""

import math

from nmt.recipe import Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate of update `step`, counted from 1, up to `train.steps`.

    noam is D^-0.5 · min(step^-0.5, step · warmup^-1.5), times `scale` (Vaswani et al. 2017, equation 3). The others
    rise to the same peak, or to `rate`, in as many updates, and differ in how they fall.
    """
    schedule = recipe.train.schedule
    if schedule.name == "noam":
        shape = min(step**-0.5, step * schedule.warmup**-1.5)
        return float(schedule.scale * recipe.model.d_model**-0.5 * shape)
    peak = (recipe.model.d_model * schedule.warmup) ** -0.5 if schedule.rate == "auto" else schedule.rate
    return schedule.scale * peak * min(step / schedule.warmup, _fall(recipe, step))


def _fall(recipe: Recipe, step: int) -> float:
    """What is left of the peak at an update after the warm-up."""
    schedule, steps = recipe.train.schedule, recipe.train.steps
    if schedule.name == "inverse-sqrt":
        return math.sqrt(schedule.warmup / step)
    begin = steps * (1 - schedule.decay) if schedule.name == "wsd" else schedule.warmup
    done = min(max((step - begin) / max(steps - begin, 1), 0.0), 1.0)
    left = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "wsd": 1 - math.sqrt(done)}[schedule.name]
    return schedule.final + (1 - schedule.final) * left
