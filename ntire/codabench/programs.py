"""What the platform starts in its containers: programs that hand over to ntire, and say so where it is not installed.

Words that begin with a dollar are places, which both platforms fill in.
"""

SCORING_COMMAND = "python3 $program/score.py $program $input $output"
INGESTION_COMMAND = "python3 $ingestion_program/ingest.py $ingestion_program $input $submission_program $output"
SCORES, OLD_SCORES, DETAILS = "scores.json", "scores.txt", "detailed_results.html"
"""What the scoring program writes: numbers by column, the same for CodaLab, and the page that people see."""
RULES = "track.toml"
"""The track's rules, beside each program."""

WEIGHTS = {
    "ntire": "ntire",
    "pyiqa": "torch/hub/pyiqa",
    "torchvision": "torch/hub/checkpoints",
    "clip": "torch/hub/clip",
}
"""Where weights that travel with the reference data lie below its `weights/`, by who looks for them."""

_PROGRAM = '''"""Hands over to `ntire codabench {command}`: {what}."""

import sys

try:
    from ntire.cli import main
except ImportError as error:
    sys.exit(
        f"ntire cannot be imported in this image ({{error}}). This is the organiser's to mend: "
        "set docker_image of the competition to an image with ntire in it."
    )

sys.argv = ["ntire", "codabench", "{command}", *sys.argv[1:]]
main()
'''


def scoring_program() -> dict[str, bytes]:
    """Its files, by name."""
    source = _PROGRAM.format(command="score", what="scores one upload, or says what is wrong with it")
    return {"metadata.yaml": f"command: {SCORING_COMMAND}\n".encode(), "score.py": source.encode()}


def ingestion_program() -> dict[str, bytes]:
    """The same of what runs submitted code before it is scored."""
    source = _PROGRAM.format(command="ingest", what="runs submitted code in a sandbox on the inputs")
    return {"metadata.yaml": f"command: {INGESTION_COMMAND}\n".encode(), "ingest.py": source.encode()}
