"""Everything `nmt` says when something is wrong that the user can mend."""


class NmtError(Exception):
    """Something the user can mend. Its text says what is wrong, where, and what to do about it.

    The text is one line (a `RecipeError` has one line per mistake). The command line prints it without
    a traceback and exits with code 2; anything that is not an `NmtError` is a bug of ours.

        NmtError
        ├── RecipeError       a recipe, or an override of one key, that does not say what to do
        ├── DataError         text, corpora, shards, and training a tokenizer on them
        ├── ModelError        a model folder that is incomplete, cut short or of another make
        ├── CheckpointError   a checkpoint that cannot be read or belongs to another recipe
        ├── TrainingError     numbers that training could not keep finite
        ├── LostError         another process of the same training that is gone
        ├── DeviceError       a device that is not there or cannot do what is asked
        ├── DownloadError     a file that cannot be fetched, or is not what it must be
        └── OutputError       a file that cannot be written: disk full, no permission, no such folder
    """


class RecipeError(NmtError):
    """A recipe that cannot be followed: one line per mistake, each naming file, line and key."""


class DataError(NmtError):
    """Text, a corpus or a shard that cannot be used, or that a tokenizer cannot be trained on."""


class ModelError(NmtError):
    """A model folder with a file missing, cut short, or not made by `nmt`."""


class CheckpointError(NmtError):
    """A checkpoint that cannot be read, or that was made by another recipe."""


class TrainingError(NmtError):
    """A training whose loss, gradients or weights stop being finite, again and again."""


class LostError(NmtError):
    """Another process of the same training is gone, and what the engine began with it is never done."""


class DeviceError(NmtError):
    """A device that is absent, or cannot do what is asked of it."""


class DownloadError(NmtError):
    """A file that cannot be fetched, or that is not the one it must be."""


class OutputError(NmtError):
    """A file or folder that cannot be written; what was there before is untouched."""
