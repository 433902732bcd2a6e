"""A treebank as parallel text: the words of each tree, and the sequence to learn, a line each."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nmt.errors import DataError, OutputError
from nmt.files import make_folder, whole_file
from nmt.parsing.linear import linearise
from nmt.parsing.trees import many, read_trees


class Pairs(NamedTuple):
    """How many trees became a pair of lines, and how many did not, for they have no words."""

    written: int
    left_out: int

    @property
    def summary(self) -> str:
        """The counts in a line."""
        because = f": {'it has' if self.left_out == 1 else 'they have'} no words" if self.left_out else ""
        return f"{many(sum(self), 'tree')} read, {self.left_out:,} left out{because}"


def write_pairs(treebank: Sequence[str | Path], prefix: str) -> Pairs:
    """Writes the trees of these files as PREFIX.words and PREFIX.tree.

    Raises `DataError` for what is not a tree, and where there is none with words; `OutputError` for a prefix that names
    only a folder. No file is then written.
    """
    path = Path(prefix)
    if prefix.endswith("/") or path.name in ("", ".."):
        raise OutputError(f'"{prefix}" names a folder: name the beginning of two files in it, such as {path / "train"}')
    make_folder(path.parent)
    written = left_out = 0
    with whole_file(f"{path}.words", "w") as words, whole_file(f"{path}.tree", "w") as sequences:
        for tree in (tree for file in treebank for tree in read_trees(file)):
            if not tree.children:
                left_out += 1
                continue
            written += 1
            words.write(" ".join(tree.words()) + "\n")
            sequences.write(linearise(tree) + "\n")
        if not written:
            raise DataError(
                f"{_named(treebank)}: no tree with words: name treebanks in the brackets of the Penn Treebank"
            )
    return Pairs(written, left_out)


def _named(files: Sequence[str | Path]) -> str:
    names = ["standard input" if str(file) == "-" else str(file) for file in files]
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
