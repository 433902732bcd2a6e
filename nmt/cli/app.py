"""The command `nmt`: what holds for all its commands."""

import errno
import os
import signal
import sys
from collections.abc import MutableMapping
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from nmt.errors import LostError, NmtError
from nmt.files import output_error


class Commands(TyperGroup):
    """What the user can mend is one line on standard error and exit code 2, whichever command says it."""

    def invoke(self, context: Any) -> Any:
        """Runs the command that is named."""
        try:
            try:
                return super().invoke(context)
            finally:
                sys.stdout.flush()  # what came before a fault is kept; and only here may the disk be full
        except LostError as error:
            print(f"nmt: error: {error}", file=sys.stderr, flush=True)
            os._exit(2)  # threads of the engine still wait for the other process, and abort an interpreter that ends
        except NmtError as error:
            _leave(f"nmt: error: {error}", 2)
        except KeyboardInterrupt:
            _leave("nmt: interrupted", 128 + signal.SIGINT)
        except BrokenPipeError:  # the reader has what it wanted, as `nmt translate | head` does
            _leave("", 128 + signal.SIGPIPE)
        except OSError as error:
            if error.filename or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                raise
            _leave(f"nmt: error: {output_error('standard output', error)}", 2)


app = typer.Typer(
    name="nmt",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""A machine translation toolkit: from raw parallel text to a translator, in five commands.

    **nmt prepare** R, **nmt train** R, **nmt average** R, then **nmt translate** R < in > out and **nmt score** R,
    where R is a recipe such as recipes/quickstart.yaml: the one file that says every choice of a run.""",
)


def main() -> None:
    """The command `nmt`: text is UTF-8 whatever the locale, and SIGTERM leaves nothing half-written either.

    What is no text, in the name of a file, is told as it is escaped.
    """
    if sys.stdout is None:
        _leave("nmt: error: standard output is closed: name a file for it, or /dev/null", 2)
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    patient(os.environ)
    app()


def patient(environment: MutableMapping[str, str]) -> None:
    """Has idle threads of torch sleep soon, not wait busily, unless the user says how they are to wait.

    On a machine with other work they would take the core from the very thread that they wait for. libgomp reads this
    when torch is imported, which is later.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & environment.keys():
        environment["GOMP_SPINCOUNT"] = "1000"


def _leave(message: str, code: int) -> NoReturn:
    """Ends at once: standard output may be a pipe that nobody reads any more."""
    if message:
        print(message, file=sys.stderr)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)
