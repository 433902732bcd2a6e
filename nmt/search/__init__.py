"""Search: from a model's next-token scores to whole hypotheses. Token ids only; no text, no files."""

from nmt.search.beam import Settings, beam_search
from nmt.search.ensemble import Ensemble
from nmt.search.sampling import Sampling, sample
from nmt.search.steps import Constraint, Hypothesis, Steps

__all__ = ["Constraint", "Ensemble", "Hypothesis", "Sampling", "Settings", "Steps", "beam_search", "sample"]
