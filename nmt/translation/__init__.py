"""Text in, text out."""

from nmt.translation.translator import Translation, Translator

__all__ = ["Translation", "Translator"]
