"""Which weights of the cache submitted code is shown: a picture could carry out what it reads."""

from datetime import date

import pytest

from ntire.entry.manifest import Manifest, MethodUsed, WeightsUsed
from ntire.files import sha256_of
from ntire.method import Weights
from ntire.method.method_table import Declared
from ntire.method.weights_files import cache_folder
from ntire.review import submitted_method
from ntire.review.submitted_method import weights_at_hand

FILES = {"public.bin": "https://example.org/public.bin", "private.bin": "", "undeclared.bin": ""}


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    folder = cache_folder()
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_bytes(name.encode())
    (folder.parent / "above.bin").write_bytes(b"above")
    declared = [
        Declared(
            "Team A", "A", Weights(name, None, "MIT", "official", urls=(url,) if url else ()), folder / name, "here"
        )
        for name, url in FILES.items()
        if name != "undeclared.bin"
    ]
    monkeypatch.setattr(submitted_method, "weights_of_methods", lambda: declared)


def shown(team, file, sha256):
    used = MethodUsed(weights=(WeightsUsed(file=file, sha256=sha256),))
    return sorted(weights_at_hand(Manifest(team=team, track="srgb", date=date(2026, 1, 1), method=used)))


def digest(name):
    return sha256_of(name.encode())


def test_what_anybody_may_fetch_is_shown_to_anybody_who_knows_its_hash():
    assert shown("Team B", "public.bin", digest("public.bin")) == ["public.bin"]
    assert shown("Team B", "public.bin", digest("private.bin")) == []


def test_a_team_s_own_file_is_shown_to_that_team_only():
    assert shown("team-a", "private.bin", digest("private.bin")) == ["private.bin"]
    assert shown("Team B", "private.bin", digest("private.bin")) == []


@pytest.mark.parametrize(("file", "content"), [("undeclared.bin", "undeclared.bin"), ("../above.bin", "above")])
def test_what_no_method_declares_and_what_lies_elsewhere_is_shown_to_nobody(file, content):
    assert shown("Team A", file, digest(content)) == []
