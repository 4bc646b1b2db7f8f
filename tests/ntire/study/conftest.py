"""A small study of entries that are made up, shared by its tests."""

import shutil
from datetime import date

import numpy as np
import pytest

from ntire.entry.manifest import Manifest, write_manifest
from tests.made import scene, write_png

ENTRIES = ("Anemone", "Borage", "Clover")
PICTURES = ("0001", "0002", "0003", "0004")


def make_entries(root, names=ENTRIES, pictures=PICTURES, side=72):
    """Inputs, and entries that restore them more or less badly; returns the folders of both."""
    rng = np.random.default_rng(5)
    for number, picture in enumerate(pictures):
        clean = scene(side, side, seed=number).astype(float)
        write_png(
            root / "lq" / f"{picture}.png", (clean + rng.normal(0, 20, clean.shape)).clip(0, 255).astype(np.uint8)
        )
        for place, name in enumerate(names):
            found = clean + rng.normal(0, 1 + 6 * place, clean.shape)
            write_png(root / "entries" / name / "images" / f"{picture}.png", found.clip(0, 255).astype(np.uint8))
    for name in names:
        manifest = Manifest(team=f"Team {name}", track="raim-2025-srgb", date=date(2026, 11, 28))
        write_manifest(root / "entries" / name, manifest)
    return root / "entries", root / "lq"


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    return make_entries(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="session")
def made_studies(material):
    """Studies that have been made in this process, by what was asked for: tests copy them."""
    return {}


@pytest.fixture
def study(ntire, material, made_studies, tmp_path):
    """Make a study by the command, with more options if wanted; returns its folder."""

    def make(*words, trials=12):
        if words not in made_studies:
            folder = material[0].parent / f"study{len(made_studies)}"
            asked = ("--crop", 48, "--trials", trials, "--repeats", 2, "--anchors", 2, "--track", "srgb", *words)
            ran = ntire("study", "new", material[0], "--lq", material[1], "-o", folder, *asked)
            assert ran.code == 0, ran.err
            made_studies[words] = folder
        return shutil.copytree(made_studies[words], tmp_path / "study")

    return make
