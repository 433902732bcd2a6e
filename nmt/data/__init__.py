"""Training data: raw text made into shards of token ids once, and read from them in batches."""

from nmt.data.changes import check_prepared
from nmt.data.prepare import prepare
from nmt.data.shards import Manifest, Shards, fingerprint

__all__ = ["Manifest", "Shards", "check_prepared", "fingerprint", "prepare"]
