"""`ntire cluster`: scripts and manifests to run on Slurm and Kubernetes."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ntire import UserError
from ntire.commands.options import app
from ntire.commands.screen import say


@app.command(
    epilog="Examples: [bold]ntire cluster slurm-array > array.sbatch[/]; [bold]ntire cluster kubernetes -o rayjob.yaml[/]"
)
def cluster(
    name: Annotated[
        Literal["slurm-array", "slurm-ray", "kubernetes"],
        typer.Argument(help="A job array of Slurm, Ray inside a job of Slurm, or a RayJob for Kubernetes."),
    ],
    file: Annotated[Path | None, typer.Option("-o", "--out", help="The file to write. Default: print it.")] = None,
) -> None:
    """Print a script for Slurm or a manifest for Kubernetes, with how it is used in its head."""
    from ntire.cluster import NAMES, text_of
    from ntire.files import writable_folder, write_atomically

    if file is None:
        typer.echo(text_of(name), nl=False)
        return
    if file.is_dir():
        raise UserError(f"{file}: expected a file to write, found a folder. Such as -o {file / NAMES[name]}")
    writable_folder(file.parent)
    write_atomically(file, text_of(name))
    say(f"written: {file}")
