"""Public corpora by name: a list of them, fetched file by file, unpacked into PREFIX.lang. No tensors."""

from nmt.fetching.catalogue import BUILT_IN, Catalogue, Known
from nmt.fetching.download import by_hand, download
from nmt.fetching.transfer import Patience

__all__ = ["BUILT_IN", "Catalogue", "Known", "Patience", "by_hand", "download"]
