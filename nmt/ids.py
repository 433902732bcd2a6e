"""The four ids that every vocabulary of `nmt` begins with."""

PAD, BOS, EOS, UNK = 0, 1, 2, 3
"""Padding, beginning of a sentence, end of a sentence, unknown (never used: what is unknown is spelled in bytes)."""
SPECIALS = 4
NEVER = (PAD, BOS, UNK)
"""Are no output."""
