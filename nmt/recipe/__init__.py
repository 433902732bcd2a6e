"""Every choice of a run, in one YAML file: `load` reads it, and says all that is wrong with it at once."""

from nmt.recipe.layout import Layout
from nmt.recipe.reading import dump, load, loads, redecide
from nmt.recipe.schema import (
    Average,
    Clean,
    Corpus,
    Data,
    Decode,
    Depths,
    Model,
    Noise,
    Optimizer,
    Recipe,
    Schedule,
    Section,
    Tokenizer,
    Train,
    Tsv,
)

__all__ = [
    "Average",
    "Clean",
    "Corpus",
    "Data",
    "Decode",
    "Depths",
    "Layout",
    "Model",
    "Noise",
    "Optimizer",
    "Recipe",
    "Schedule",
    "Section",
    "Tokenizer",
    "Train",
    "Tsv",
    "dump",
    "load",
    "loads",
    "redecide",
]
