"""`ntire doctor`: what this installation can do."""

from pathlib import Path
from typing import Annotated

import typer

from ntire.commands.options import AsJson, Device, app
from ntire.commands.screen import print_json, print_table


@app.command(
    epilog="Examples: [bold]ntire doctor[/]; [bold]ntire doctor --calibrate IQA-PyTorch/ResultsCalibra[/]; "
    "exit code 3 if something needed is broken"
)
def doctor(
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Only hold the metrics, with their weights, against the values published for these pictures.",
        ),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Check this installation: versions, devices, image and raw reading, metric calibration, weights."""
    from dataclasses import asdict

    from ntire.commands.installation import calibration, examine
    from ntire.environment import choose_device

    checks = list(examine() if calibrate is None else calibration(calibrate, choose_device(device)))
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        rows = [[check.name, check.state, check.found] for check in checks]
        print_table(["check", "state", "found"], rows, prose=["check", "found"])
    if any(check.state == "broken" for check in checks):
        raise typer.Exit(3)
