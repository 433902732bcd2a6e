"""The command line: each command reads the recipe, calls one function and prints.

torch is imported inside the commands that need it, so that `nmt --help` answers at once.
"""

from nmt.cli import making, using
from nmt.cli.app import app, main

for command in (making.prepare, making.train, making.average, using.translate, using.score):
    app.command()(command)

__all__ = ["app", "main"]
