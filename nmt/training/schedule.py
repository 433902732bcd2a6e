"""How the learning rate moves."""

from nmt.recipe import Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate of update `step`, counted from 1: D^-0.5 · min(step^-0.5, step · warmup^-1.5), times `scale`.

    Vaswani et al. 2017, equation 3.
    """
    schedule = recipe.train.schedule
    shape = min(step**-0.5, step * schedule.warmup**-1.5)
    return float(schedule.scale * recipe.model.d_model**-0.5 * shape)
