"""What is in a recipe's text, found without training: figures, suspicious pairs, and what to mend."""

from nmt.diagnosis.advice import Advice, advise
from nmt.diagnosis.figures import Diagnosis
from nmt.diagnosis.reading import diagnose

__all__ = ["Advice", "Diagnosis", "advise", "diagnose"]
