"""Search: from a model's next-token scores to whole hypotheses. Token ids only; no text, no files."""

from nmt.search.beam import Settings, beam_search
from nmt.search.constraints import Judge, Judged, MinLength, NoRepeat, together
from nmt.search.coverage import log_coverage
from nmt.search.ensemble import Ensemble
from nmt.search.sampling import Sampling, sample
from nmt.search.static import StaticSearch
from nmt.search.steps import Attentive, Constraint, Hypothesis, Steps

__all__ = [
    "Attentive",
    "Constraint",
    "Ensemble",
    "Hypothesis",
    "Judge",
    "Judged",
    "MinLength",
    "NoRepeat",
    "Sampling",
    "Settings",
    "StaticSearch",
    "Steps",
    "beam_search",
    "log_coverage",
    "sample",
    "together",
]
