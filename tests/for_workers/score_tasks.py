"""Scoring at workers with a metric over sets that needs no weights, and workers that lack something."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from ntire.files import sha256_of
from ntire.review.score_on_engine import make_scorer as make_real_scorer
from ntire.review.score_on_engine import say_identities as say_real_identities
from ntire.scoring.instruments import Instrument
from ntire.scoring.metrics import METRICS

LOOKS = "NTIRE_TEST_LOOKS"
"""A folder with an empty file for every observation that a worker has made, named by what it looked at."""
SECONDS = "NTIRE_TEST_SECONDS"
"""How long an observation takes at least."""
KILLED_AFTER = 4
"""Observations after which a worker is killed, once, where such a folder has a file of that name."""


class SmallFeatures(Instrument):
    """Of FID: the means of 8 x 8 parts of a picture."""

    batch = 1

    def observe(self, views):
        (pixels,) = (view.pixels for view in views)
        time.sleep(float(os.environ.get(SECONDS, "0")))
        if LOOKS in os.environ:
            folder = Path(os.environ[LOOKS])
            (folder / f"{sha256_of(pixels.tobytes())}-{os.urandom(8).hex()}").touch()
            if (folder / "kill").exists() and len(list(folder.iterdir())) > KILLED_AFTER:
                (folder / "kill").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        rows = np.array_split(pixels.astype(np.float64), 8)
        return [np.array([part.mean() for row in rows for part in np.array_split(row, 8, 1)])]


def small_fid():
    """`fid-gt` on such features, without weights."""
    return replace(METRICS["fid-gt"], weights=(), load=lambda device, paths: SmallFeatures())


def make_scorer(desk, *arguments):
    METRICS["fid-gt"] = small_fid()
    return make_real_scorer(desk, *arguments)


def make_scorer_with(environment, desk, *arguments):
    """In a worker whose machine does not have the test's environment."""
    os.environ.update(environment)
    return make_scorer(desk, *arguments)


def say_identities(desk, *arguments):
    METRICS["fid-gt"] = small_fid()
    return say_real_identities(desk, *arguments)
