"""Growing data: a model's translations as training text for the next one."""

from nmt.growing.backtranslate import backtranslate
from nmt.growing.distill import distill
from nmt.growing.translating import How

__all__ = ["How", "backtranslate", "distill"]
