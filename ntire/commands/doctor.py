"""`ntire doctor`: what this installation can do."""

import typer

from ntire.commands.options import AsJson, app
from ntire.commands.screen import print_json, print_table


@app.command(epilog="Example: [bold]ntire doctor[/]; exit code 3 if something needed is broken")
def doctor(as_json: AsJson = False) -> None:
    """Check this installation: versions, devices, image and raw reading, metric calibration, weights."""
    from dataclasses import asdict

    from ntire.commands.installation import examine

    checks = list(examine())
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        print_table(["check", "state", "found"], [[check.name, check.state, check.found] for check in checks])
    if any(check.state == "broken" for check in checks):
        raise typer.Exit(3)
