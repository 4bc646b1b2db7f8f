"""What `ntire cluster` prints: scripts for Slurm, a manifest for Kubernetes. `docs/cluster.md` says how they are used."""

from importlib.resources import files

NAMES = {"slurm-array": "array.sbatch", "slurm-ray": "ray.sbatch", "kubernetes": "rayjob.yaml"}
"""What there is, and its file."""


def text_of(name: str) -> str:
    """One of NAMES."""
    return (files("ntire.cluster") / NAMES[name]).read_text(encoding="utf-8")
