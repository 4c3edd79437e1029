"""The application: its commands, messages and errors."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from unlasting.cli._wording import with_options

INTERRUPTED = 130
ORDER = ("demo", "check", "train", "predict", "evaluate", "rank", "report", "reproduce")
"""The commands in the order of their use; others come after them."""

ERRORS = (ValueError, KeyError, TypeError, IndexError, RuntimeError, ImportError, OSError)
"""Errors that the package raises on purpose; others are faults of the package."""


_USAGE_ERROR: Any = typer.BadParameter.__mro__[2]
"""The base of all usage errors, which typer does not export."""


class Commands(TyperGroup):
    """All commands. With `--json`, wrong usage is reported as JSON too."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the commands in the order of their use."""
        return sorted(self.commands, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))

    def main(self, args: Any = None, *others: Any, **options: Any) -> Any:
        """Run the command line."""
        args = sys.argv[1:] if args is None else list(args)
        if "--json" not in args:
            return super().main(args, *others, **options)
        try:
            code = super().main(args, *others, **{**options, "standalone_mode": False})
        except _USAGE_ERROR as error:
            report_error(error, error.format_message())
            code = error.exit_code
        sys.exit(code or 0)


class Command(TyperCommand):
    """A command with errors in one line that name its options; faults of the package keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        names = {parameter.name: parameter.opts[0] for parameter in self.params}
        is_quiet, as_json = ctx.params["quiet"], ctx.params["as_json"]
        try:
            with messages(names, logging.WARNING if is_quiet else logging.INFO):
                return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except ERRORS as error:
            if not isinstance(error, OSError) and not _is_deliberate(error):
                raise
            message = with_options(str(error), names)
            if as_json:
                report_error(error, message)
            else:
                typer.secho(f"Error: {message}", fg="red", err=True)
            raise typer.Exit(1) from error


class _Messages(logging.Handler):
    """Write messages to the standard error."""

    def __init__(self, names: dict[str, str]) -> None:
        super().__init__()
        self._names = names

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        colour = {"WARNING": "yellow", "ERROR": "red"}.get(record.levelname)
        typer.secho(f"{record.levelname}: {with_options(record.getMessage(), self._names)}", fg=colour, err=True)


@contextmanager
def messages(names: dict[str, str], level: int) -> Iterator[None]:
    """Write the package's messages to the standard error, with the options of a command."""
    logger = logging.getLogger("unlasting")
    before = logger.handlers, logger.level, logger.propagate
    others = [handler for handler in logger.handlers if type(handler).__name__ != "RichHandler"]
    logger.handlers, logger.propagate = [*others, _Messages(names)], False
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.handlers, level, logger.propagate = before
        logger.setLevel(level)


def report_error(error: BaseException, message: str) -> None:
    """Write an error as JSON."""
    typer.echo(json.dumps({"error": {"type": type(error).__name__, "message": message}}, indent=2))


def _is_deliberate(error: BaseException) -> bool:
    """Return whether this package raised an error itself."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("unlasting")


app = typer.Typer(
    name="unlasting",
    cls=Commands,
    help="Predict, cell by cell, how cells respond to perturbations that nobody has measured.",
    epilog="Results go to the standard output, messages to the standard error. Exit codes: 0 done, 1 error, 2 wrong usage, 130 interrupted.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
)
command = app.command(cls=Command)


def _version(asked: bool) -> None:
    if asked:
        import unlasting

        typer.echo(f"unlasting {unlasting.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Predict, cell by cell, how cells respond to perturbations that nobody has measured."""
