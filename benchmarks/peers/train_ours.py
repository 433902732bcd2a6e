"""Trains with nmt, as `nmt train` does, for `training.py`; the recipe lies in the folder of the order."""

import json
from pathlib import Path

from watch import Watch

from nmt import __version__
from nmt import recipe as recipes
from nmt.model.size import parameter_count
from nmt.recipe import Layout
from nmt.training import train
from nmt.training.journal import Journal
from nmt.training.learner import Update


def told(watch: Watch) -> None:
    """Has the journal tell the watch of every update."""
    tell = Journal.update

    def noted(self: Journal, step: int, update: Update) -> None:
        watch.saw(update.target_tokens)
        watch.update()
        tell(self, step, update)

    Journal.update = noted  # type: ignore[method-assign]


def main() -> None:
    """Trains, reports."""
    watch = Watch.ordered()
    told(watch)
    recipe = recipes.load(Path(watch.order["folder"], "recipe.yaml"))
    train(recipe, watch.order["device"])
    *_, last = Layout.of(recipe).metrics.read_text("utf-8").splitlines()
    watch.report(parameter_count(recipe), json.loads(last)["loss"], nmt=__version__)


if __name__ == "__main__":
    main()
