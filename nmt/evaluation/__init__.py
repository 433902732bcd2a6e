"""How good is a translation? sacreBLEU's answers, each with the signature that makes it comparable."""

from nmt.evaluation.closely import by_length, groups, sentences
from nmt.evaluation.keeping import Kept, digest, keep, kept
from nmt.evaluation.report import Report, Row
from nmt.evaluation.scoring import METRICS, bleu, chrf, closest, score

__all__ = [
    "METRICS",
    "Kept",
    "Report",
    "Row",
    "bleu",
    "by_length",
    "chrf",
    "closest",
    "digest",
    "groups",
    "keep",
    "kept",
    "score",
    "sentences",
]
