"""Search: from a model's next-token scores to whole hypotheses. Token ids only; no text, no files."""

from nmt.search.beam import Constraint, Hypothesis, Settings, Steps, beam_search

__all__ = ["Constraint", "Hypothesis", "Settings", "Steps", "beam_search"]
