"""Text in, text out."""

from nmt.translation.alignment import Links, align, pharaoh
from nmt.translation.held_out import Translated, translate_test_sets
from nmt.translation.translator import Translation, Translator

__all__ = ["Links", "Translated", "Translation", "Translator", "align", "pharaoh", "translate_test_sets"]
