"""How good is a translation? sacreBLEU's answers, each with the signature that makes it comparable."""

from nmt.evaluation.report import Report, Row
from nmt.evaluation.scoring import METRICS, bleu, chrf, closest, score

__all__ = ["METRICS", "Report", "Row", "bleu", "chrf", "closest", "score"]
