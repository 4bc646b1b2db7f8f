"""From votes to results: known preferences are found again, odd observers are listed, marks reach the leaderboard."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from ntire.commands.scoring import leaderboard
from ntire.study.ballots import Vote
from ntire.study.deck import Trial, hand
from ntire.study.design import open_study
from ntire.study.outcome import RESAMPLES, outcome_of, resampled
from ntire.study.power import sketch
from ntire.study.results import results_from
from ntire.study.screening import far_scores
from ntire.study.simulation import Behaviour, answers, felt, shown_to
from ntire.study.store import Observer, Store

STRENGTHS = (0.8, 0.2, -0.2, -0.8)


def observer(number, answered, **changes):
    return replace(Observer(number, f"p{number}", "t", number, "t", {}, None, None, "", answered, "t"), **changes)


def simulated(design, observers, how, seed=0):
    """The votes of made-up observers on their hands, repeats and anchors as sensible people answer them."""
    rng = np.random.default_rng(seed)
    shown = shown_to(design, observers)
    given = answers(design, felt(shown, how, 1, rng), how, rng)[0]
    return [
        Vote(
            int(who),
            number,
            int(region),
            tuple(map(int, entries)),
            "vote",
            "overall",
            tuple(map(int, answer)),
            4.0,
            "t",
        )
        for number, (who, region, entries, answer) in enumerate(
            zip(shown.observer, shown.region, shown.entries, given, strict=True)
        )
    ]


@pytest.mark.parametrize("kind", ["pairs", "ranking", "opinion"])
def test_known_preferences_are_found_within_their_intervals(kind):
    """Of 10 studies with tastes and peculiar pictures, the true gaps lie in the 95 % intervals nearly always."""
    design = sketch(kind, 4, 12, 30, size=3)
    strengths = tuple(3 + one for one in STRENGTHS) if kind == "opinion" else STRENGTHS
    how = Behaviour(strengths, taste=0.2, peculiarity=0.2, noise=0.7)
    within, orders = [], []
    for seed in range(10):
        found = outcome_of(design, "overall", simulated(design, 12, how, seed))
        orders.append([one.entry for one in found.entries])
        for duel in found.duels:
            true = strengths[int(duel.first)] - strengths[int(duel.second)]
            within.append(duel.difference.low <= true <= duel.difference.high)
    assert np.mean(within) >= 0.88
    assert sum(order[0] == "0" and order[-1] == "3" for order in orders) >= 9


def test_intervals_are_as_wide_as_observers_and_pictures_are_few():
    how = Behaviour(STRENGTHS)
    widths = {}
    for observers, regions in ((4, 4), (4, 30), (30, 30)):
        design = sketch("pairs", 4, regions, 30)
        found = outcome_of(design, "overall", simulated(design, observers, how))
        widths[observers, regions] = np.mean([one.difference.high - one.difference.low for one in found.duels])
    assert widths[4, 4] > widths[4, 30] > widths[30, 30]


def test_resamples_draw_observers_and_regions_as_wholes():
    design = sketch("pairs", 3, 5, 10)
    votes = simulated(design, 6, Behaviour((0, 0, 0)))
    weights = resampled(votes, np.random.default_rng(0))
    assert weights.shape == (1 + RESAMPLES, 60)
    assert (weights[0] == 1).all()
    same = {}
    for column, vote in enumerate(votes):
        same.setdefault((vote.observer, vote.region), []).append(column)
    for columns in same.values():
        assert (weights[:, columns] == weights[:, columns[:1]]).all()
    assert weights[1:].mean() == pytest.approx(1, abs=0.05)


def full_session(design, slot, rng, how="well"):
    """The votes of an observer who answers well, by chance, or always with one side."""
    votes = []
    for position, trial in enumerate(hand(design, slot)):
        if how == "well":
            ranks = (1, 2) if trial.shown[0] < trial.shown[1] else (2, 1)
        elif how == "side":
            ranks = (1, 2)
        else:
            ranks = [(1, 2), (2, 1), (1, 1)][rng.integers(3)]
        votes.append(Vote(slot, position, trial.region, trial.shown, trial.role, "overall", ranks, 4.0, "t"))
    return votes


def test_observers_who_click_anything_are_left_out_and_listed_with_their_reasons():
    design = sketch("pairs", 4, 6, 24)
    design = design.model_copy(update={"session": design.session.model_copy(update={"anchors": 8, "repeats": 8})})
    rng = np.random.default_rng(1)
    votes = [vote for slot in range(6) for vote in full_session(design, slot, rng)]
    votes += full_session(design, 6, rng, "chance") + full_session(design, 7, rng, "side")
    votes += full_session(design, 8, rng)[:5]
    people = [observer(slot, design.length) for slot in range(8)] + [observer(8, 5)]
    people[5] = replace(people[5], excluded="t", reason="knew the entries")
    found = results_from(design, people, votes)
    reasons = {one.observer: "; ".join(one.reasons) for one in found.screened}
    assert [reasons[slot] for slot in range(5)] == [""] * 5
    assert reasons[5] == "left out by hand: knew the entries"
    assert "anchors not judged worse" in reasons[6]
    assert "won by one side" in reasons[7]
    assert "repeats answered otherwise" in reasons[7]
    assert "answered 5 of 40, less than 50%" in reasons[8]
    assert found.kept == {0, 1, 2, 3, 4}
    assert found.outcomes[0].observers == 5
    assert found.of_all[0].observers == 9
    assert len(found.votes) == len(votes)
    assert [one.entry for one in found.outcomes[0].entries] == ["0", "1", "2", "3"]
    assert found.marks()["0"] > 15 > 5 > found.marks()["3"]


def test_bt500_rejects_who_scatters_and_keeps_who_is_always_stern():
    rng = np.random.default_rng(0)
    truth = rng.integers(2, 5, 60)
    votes = []
    for who in range(20):
        for region, level in enumerate(truth):
            given = level + rng.choice([-1, 0, 0, 0, 1])
            given = (1 if region % 2 else 5) if who == 18 else level - 2 if who == 19 else given
            votes.append(Vote(who, region, region, (0,), "vote", "overall", (int(np.clip(given, 1, 5)),), 1.0, "t"))
    found = far_scores(votes)
    assert [who for who, (_, rejected) in found.items() if rejected] == [18]
    assert found[19][0] > 0.05


def test_everything_is_written_and_the_marks_reach_the_leaderboard(study, ntire, tmp_path):
    folder = study()
    design, rng = open_study(folder), np.random.default_rng(3)
    store = Store(folder, design)
    for slot in range(6):
        made = store.join(f"t{slot}", "=cmd()" if slot else "Ada Lovelace", 100)
        store.consent(made.id)
        for vote in full_session(design, slot, rng):
            trial = Trial(vote.region, vote.shown, vote.role)
            store.vote(
                made.id,
                vote.position,
                f"nonce-{slot}-{vote.position}",
                trial,
                {"overall": vote.answer},
                3.0,
                design.length,
            )
    store.close()
    efficiency = tmp_path / "efficiency.csv"
    efficiency.write_text("team,efficiency\nTeam Anemone,1\nTeam Borage,2\nTeam Clover,3.5\n")
    scores = tmp_path / "scored"
    (scores / "Anemone").mkdir(parents=True)
    (scores / "Clover").mkdir()
    (scores / "leaderboard.csv").write_text(
        "rank,entry,psnr-y,lpips\n1,Anemone,30,0.1\n2,Borage,29,0.2\n3,Clover,28,0.05\n"
    )
    for entry, value in (("Anemone", 31), ("Clover", 27)):
        rows = "".join(f"{one.picture},ok,{value},{0.3 if entry == 'Anemone' else 0.1}\n" for one in design.regions)
        (scores / entry / "scores.csv").write_text(f"image,status,psnr-y,lpips\n{rows}")
    out = tmp_path / "out"
    ran = ntire("study", "results", folder, "-o", out, "--marks", efficiency, "--scores", scores)
    assert ran.code == 0, ran.err
    assert "efficiency" not in ran.err

    def table(name):
        with (out / name).open(newline="") as file:
            return list(csv.DictReader(file))

    assert [row["entry"] for row in table("results.csv")] == ["Anemone", "Borage", "Clover"]
    assert len(table("votes.csv")) == 6 * design.length
    assert {row["role"] for row in table("votes.csv")} == {"vote", "repeat", "anchor"}
    assert [row["counts"] for row in table("observers.csv")] == ["yes"] * 6
    metrics = {row["metric"]: row for row in table("metrics.csv")}
    assert float(metrics["psnr-y"]["spearman"]) == 1
    assert float(metrics["psnr-y"]["foretold"]) == 1
    assert float(metrics["lpips"]["foretold"]) == 0
    published = json.loads((out / "results.json").read_text())
    assert published["outcomes"][0]["entries"][0]["entry"] == "Anemone"
    told = "".join(path.read_text() for path in out.iterdir())
    assert "Lovelace" not in told
    assert "cmd()" not in told
    page = (out / "index.html").read_text()
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="', page)
    assert page.count("<circle") == 3

    means = tmp_path / "means.csv"
    header = "entry,team,psnr-y,ssim-y,lpips,dists,niqe\n"
    means.write_text(
        header + "".join(f"{name},Team {name},38,0.95,0.07,0.06,4.5\n" for name in ("Anemone", "Borage", "Clover"))
    )
    final = leaderboard(means, track="srgb", phase3=out / "marks.csv").lines
    mark = {row["entry"]: float(row["user_study"]) + float(row["efficiency"]) for row in table("marks.csv")}
    plain = leaderboard(means, track="srgb").lines[0].total
    assert [line.entry for line in final] == sorted(mark, key=mark.get, reverse=True)
    assert all(line.total == pytest.approx(plain + mark[line.entry], abs=1e-3) for line in final)
    name = design.regions[0].picture
    (scores / "Anemone" / "scores.csv").write_text(f"image,psnr-y\nnight/{name},31\nday/{name},20\nday/other,1\n")
    ran = ntire("study", "results", folder, "-o", out, "--scores", scores)
    assert (ran.code, f"{name}: night/{name}, day/{name}" in ran.err) == (2, True)
    assert "also asks for efficiency" in " ".join(ntire("study", "results", folder, "-o", out).err.split())
    efficiency.write_text("entry,efficiency\nAnemone,1\n")
    ran = ntire("study", "results", folder, "-o", out, "--marks", efficiency)
    assert ran.code == 2
    assert "no line for Borage" in ran.err
    assert "no line for Clover" in ran.err


def test_results_of_nothing_are_told(study, ntire, tmp_path):
    folder = study()
    assert "`ntire study serve" in ntire("study", "results", folder, "-o", tmp_path / "out").err
    Store(folder, open_study(folder)).close()
    ran = ntire("study", "results", folder, "-o", tmp_path / "out")
    assert ran.code == 2
    assert "found 0 answers of 0 observers" in " ".join(ran.err.split())


def test_questions_have_results_of_their_own_and_weights_in_the_mark(study):
    design = open_study(study("--criteria", "raim"))
    rng = np.random.default_rng(0)
    votes = []
    for slot in range(4):
        for vote in full_session(design, slot, rng):
            turned = vote.answer[::-1]
            names = [one.name for one in design.criteria]
            votes += [
                replace(vote, criterion=name, answer=turned if name == "fidelity" else vote.answer) for name in names
            ]
    people = [observer(slot, design.length) for slot in range(4)]
    found = results_from(design, people, votes)
    first = {one.criterion: one.entries[0].entry for one in found.outcomes}
    assert first == {"texture": "Anemone", "colour-noise": "Anemone", "artefacts": "Anemone", "fidelity": "Clover"}
    heavy = tuple(one.model_copy(update={"weight": 9.0 if one.name == "fidelity" else 1.0}) for one in design.criteria)
    other = results_from(design.model_copy(update={"criteria": heavy}), people, votes)
    assert found.marks()["Anemone"] > found.marks()["Clover"]
    assert other.marks()["Anemone"] < other.marks()["Clover"]
