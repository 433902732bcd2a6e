"""Text in, text out."""

from nmt.translation.alignment import align, pharaoh
from nmt.translation.forcing import Forced
from nmt.translation.held_out import Translated, translate_test_sets
from nmt.translation.mbr import least_risk
from nmt.translation.suspects import OnSuspect, Tally
from nmt.translation.translation import Links, Translation
from nmt.translation.translator import Translator

__all__ = [
    "Forced",
    "Links",
    "OnSuspect",
    "Tally",
    "Translated",
    "Translation",
    "Translator",
    "align",
    "least_risk",
    "pharaoh",
    "translate_test_sets",
]
