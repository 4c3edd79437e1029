from __future__ import annotations

import typer

from unlasting.cli._app import command
from unlasting.cli._options import AsJson, Quiet
from unlasting.cli._output import say


@command
def doctor(as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Show versions, devices and optional packages in this installation.

    Example: `unlasting doctor --json`
    """
    from unlasting._doctor import examine

    findings = examine()
    say(findings, as_json)
    if findings["problems"]:
        raise typer.Exit(1)
