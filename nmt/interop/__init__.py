"""Our models in the formats of other tools."""

from nmt.interop.exporting import Exported, export

__all__ = ["Exported", "export"]
