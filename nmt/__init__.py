"""nmt: a machine translation toolkit. `nmt.Translator.load(folder).translate([...])` translates."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nmt.errors import NmtError as NmtError
    from nmt.translation import Translation as Translation
    from nmt.translation import Translator as Translator

__version__ = "0.1.0"
__all__ = ["NmtError", "Translation", "Translator", "__version__"]

_ROOMS = {"Translator": "nmt.translation", "Translation": "nmt.translation", "NmtError": "nmt.errors"}


def __getattr__(name: str) -> Any:
    """Imports what is asked for only then: torch takes a second, and most commands begin without it."""
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module 'nmt' has no attribute {name!r}")
