"""What every line goes through before it becomes tokens, in training and in translation alike."""

import re
import unicodedata

# What str.split() does not count as white space but the tokenizer must not see either: other controls (NUL
# and the like) and halves of a surrogate pair, which are no text but which JSON, for one, lets through.
_STRAY = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
SPACE_OF_SENTENCEPIECE = "\u2581"


def one_line(text: str) -> str:
    """`text` in Unicode NFC, with each run of white space and control characters made one plain space.

    White space is all of Unicode's: tab, carriage return, line and paragraph separators, no-break space …
    Nothing is left at either end. The result is one line, and `one_line` of it is itself.
    """
    text = unicodedata.normalize("NFC", text).replace(SPACE_OF_SENTENCEPIECE, " ")
    if text.isprintable():  # most lines are, and then a plain space is their only white space
        if "  " not in text:
            return text.strip(" ")
    else:
        text = _STRAY.sub(" ", text)
    return " ".join(text.split())
