"""The command line: each command reads the recipe, calls one function and prints.

torch is imported inside the commands that need it, so that `nmt --help` answers at once.
"""

from nmt.cli import checking, exporting, fetching, growing, making, paper, parsing, seeing, using
from nmt.cli.app import app, main

for command in (
    fetching.download,
    checking.check,
    making.prepare,
    making.train,
    making.average,
    using.translate,
    using.score,
    seeing.report,
    growing.backtranslate,
    growing.distill,
    exporting.export,
    seeing.attention,
    parsing.trees,
    parsing.parse,
    parsing.evalb,
    paper.table3,
):
    app.command()(command)

__all__ = ["app", "main"]
