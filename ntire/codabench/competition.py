"""A competition as the platform knows it: what an organiser decides, and `competition.yaml` from that and a track's rules."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ntire.scoring.leaderboard import Line
from ntire.scoring.metrics import METRICS
from ntire.scoring.track import Track

IMAGE = "ntire-codabench:latest"
"""Of the stage `codabench` of ntire's Dockerfile, pushed to where the worker finds it."""


@dataclass(frozen=True)
class Competition:
    """What the rules of a track do not say."""

    start: datetime
    end: datetime | None = None
    title: str = ""
    """The track's, if empty."""
    phase: str = "Test"
    contact: str = ""
    docker_image: str = IMAGE
    queue: str = ""
    uploads_a_day: int = 5
    uploads: int = 100
    """Of a participant, in all."""
    seconds: int = 3600
    """That ingestion and scoring together may take."""
    code: bool = False
    """Whether uploads are code, which an ingestion program runs."""

    @property
    def problems(self) -> list[str]:
        """What the platform would refuse, in words."""
        found = []
        if self.end is not None and self.end <= self.start:
            found.append(f"--end {self.end.isoformat()}: expected a time after --start {self.start.isoformat()}.")
        return found


def column_key(metric: str) -> str:
    """A metric's column: letters, digits and underscores, which every version of the platform takes."""
    return re.sub(r"[^0-9a-z]+", "_", metric.lower()).strip("_")


def columns_of(track: Track) -> list[dict[str, Any]]:
    """The leaderboard's columns: the total first, which ranks, then the metrics in the order of the rules."""
    total = [{"title": "Total", "key": "total", "sorting": "desc"}] if track.terms else []
    metrics = [
        {"title": name, "key": column_key(name), "sorting": "desc" if METRICS[name].higher_is_better else "asc"}
        for name in track.metrics
    ]
    return [{**one, "index": number, "precision": track.decimals} for number, one in enumerate([*total, *metrics])]


def scores_of(line: Line, track: Track) -> tuple[dict[str, float], list[str]]:
    """A line's scores by column, and the columns whose value is infinite, which no platform takes."""
    found = {"total": line.total} if track.terms else {}
    found |= {column_key(name): line.means.get(name) for name in track.metrics}
    known = {name: value for name, value in found.items() if value is not None}
    return {name: value for name, value in known.items() if math.isfinite(value)}, [
        name for name, value in known.items() if not math.isfinite(value)
    ]


def competition_of(
    track: Track, how: Competition, pages: Mapping[str, str], parts: Sequence[str], image: str
) -> dict[str, Any]:
    """The content of `competition.yaml`; `pages` are files by title, `parts` the zips that there are."""
    phase: dict[str, Any] = {
        "index": 0,
        "name": how.phase,
        "start": how.start.isoformat(),
        "tasks": [0],
        "max_submissions": how.uploads,
        "max_submissions_per_day": how.uploads_a_day,
        "execution_time_limit": how.seconds,
        "accepts_only_result_submissions": not how.code,
    }
    phase |= {"end": how.end.isoformat()} if how.end else {}
    phase |= {key: f"{key}.zip" for key in ("starting_kit", "public_data") if f"{key}.zip" in parts}
    task: dict[str, Any] = {"index": 0, "name": track.name, "description": track.title}
    for key in ("scoring_program", "reference_data", "ingestion_program", "input_data"):
        task |= {key: f"{key}.zip"} if f"{key}.zip" in parts else {}
    whole: dict[str, Any] = {
        "version": 2,
        "title": how.title or track.title,
        "description": track.title,
        "image": image,
        "terms": pages["Terms"],
        "docker_image": how.docker_image,
        "enable_detailed_results": True,
        "show_detailed_results_in_submission_panel": True,
        "show_detailed_results_in_leaderboard": True,
        "make_programs_available": False,
        "make_input_data_available": False,
        "registration_auto_approve": False,
        "auto_run_submissions": True,
        "pages": [{"title": title, "file": file} for title, file in pages.items() if title != "Terms"],
        "tasks": [task],
        "phases": [phase],
        "leaderboards": [
            {
                "title": "Results",
                "key": "main",
                "index": 0,
                "submission_rule": "Force_Best",
                "hidden": False,
                "columns": columns_of(track),
            }
        ],
    }
    whole |= {"contact_email": how.contact} if how.contact else {}
    whole |= {"queue": how.queue} if how.queue else {}
    if "sample_submission.zip" in parts:
        whole["solutions"] = [{"index": 0, "path": "sample_submission.zip", "tasks": [0]}]
    return whole
