"""Search: from a model's next-token scores to whole hypotheses. Token ids only; no text, no files."""

from nmt.search.beam import Hypothesis, Settings, Steps, beam_search

__all__ = ["Hypothesis", "Settings", "Steps", "beam_search"]
