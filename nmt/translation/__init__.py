"""Text in, text out."""

from nmt.translation.alignment import Links, align, pharaoh
from nmt.translation.forcing import Forced
from nmt.translation.held_out import Translated, translate_test_sets
from nmt.translation.mbr import least_risk
from nmt.translation.translator import Translation, Translator

__all__ = [
    "Forced",
    "Links",
    "Translated",
    "Translation",
    "Translator",
    "align",
    "least_risk",
    "pharaoh",
    "translate_test_sets",
]
