"""What `metrics.jsonl` says, for TensorBoard as well: the same figures, so that they can be watched as they come."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nmt.errors import NmtError
from nmt.files import output_error

NAMES = {"train": "training", "valid": "validation"}
APART = {"kind", "step", "time"}


class Events:
    """A folder of event files. It holds what `metrics.jsonl` holds: it is written anew when that loses lines."""

    def __init__(self, folder: Path) -> None:
        """Raises `NmtError` where TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise NmtError(
                "train.tensorboard: takes TensorBoard, which is not installed: pip install nmt[tensorboard], or set it "
                "to false"
            ) from None
        self._open, self._folder = SummaryWriter, folder
        self._writer: SummaryWriter | None = None

    def restart(self, lines: Sequence[dict[str, Any]]) -> None:
        """Has these lines and no others. Raises `OutputError`."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        try:
            # A TensorBoard that is looking on forgets, by this, what it has read of this run.
            self._writer = self._open(str(self._folder), purge_step=0)
        except OSError as error:
            raise output_error(self._folder, error) from None
        for line in lines:
            self._write(line)
        self._flush()

    def add(self, line: dict[str, Any]) -> None:
        """One line more. Raises `OutputError`."""
        self._write(line)
        self._flush()

    def close(self) -> None:
        """Nothing comes any more."""
        if self._writer:
            self._writer.close()
            self._writer = None

    def _write(self, line: dict[str, Any]) -> None:
        assert self._writer
        for name, value in figures(line):
            self._writer.add_scalar(name, value, line["step"], line["time"])

    def _flush(self) -> None:
        assert self._writer
        try:
            self._writer.flush()
        except OSError as error:
            raise output_error(self._folder, error) from None


def figures(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The figures of a line of `metrics.jsonl`, by names in groups; of each layer one, counted from 1."""
    for key, value in line.items():
        name = f"{NAMES.get(line['kind'], line['kind'])}/{key}"
        if key in APART or value is None:
            continue
        if isinstance(value, dict):
            for kind, layers in value.items():
                yield from ((f"{key}/{kind}_{n}", each) for n, each in enumerate(layers, 1) if each is not None)
        else:
            yield name, float(value)
