"""Text in, text out."""

from nmt.translation.held_out import Translated, translate_test_sets
from nmt.translation.translator import Translation, Translator

__all__ = ["Translated", "Translation", "Translator", "translate_test_sets"]
