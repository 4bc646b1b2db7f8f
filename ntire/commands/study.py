"""`ntire study`: a blind study with observers, from its design to the marks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ntire import UserError
from ntire.commands.options import AsJson, TrackName, app
from ntire.commands.screen import out, print_json, progress, say
from ntire.commands.study_tables import print_powers, print_results, say_missing_marks

if TYPE_CHECKING:
    from ntire.picture.image import Pixels
    from ntire.scoring.track import Track
    from ntire.study.design import Design
    from ntire.study.making import Restorations

study_app = typer.Typer(no_args_is_help=True, help="Let observers judge entries blindly in the browser, and mark them.")
app.add_typer(study_app, name="study")

LARGEST = (8192, 8192)
"""Height and width of a stranger's picture, at most."""

Kind = Annotated[
    Literal["pairs", "ranking", "opinion"],
    typer.Option(help="Which of two is better, an order of up to six, or one of five levels."),
]
NoTies = Annotated[bool, typer.Option("--no-ties", help="Do not offer `no difference` for a pair.")]
Trials = Annotated[int | None, typer.Option(help="Trials of one observer, without repeats and anchors. Default: 60.")]
Study = Annotated[Path, typer.Argument(help="The folder of a study, as `ntire study new` makes it.")]


@study_app.command(
    "new",
    epilog="Examples: [bold]ntire study new submissions/ --track srgb --lq test/ -o study[/]; "
    "[bold]ntire study new A B C --track raw --lq night/ --kind opinion --criteria raim --pictures 20 -o study[/]",
)
def study_new(
    entries: Annotated[list[Path], typer.Argument(help="Entries, or folders of entries.")],
    track: TrackName,
    lq: Annotated[Path, typer.Option("--lq", help="Folder of inputs.")],
    folder: Annotated[Path, typer.Option("-o", "--out", help="The new folder of the study.")],
    gt: Annotated[Path | None, typer.Option("--gt", help="Folder of ground truth, to be looked at as well.")] = None,
    title: Annotated[str, typer.Option(help="What observers read at the top.")] = "Which restoration is better?",
    kind: Kind = "pairs",
    no_ties: NoTies = False,
    criteria: Annotated[
        Literal["overall", "raim"], typer.Option(help="One question, or texture, colour noise, artefacts and fidelity.")
    ] = "overall",
    regions: Annotated[
        str,
        typer.Option(help="disagreement, seed or centre; or a CSV with picture, top, left and perhaps side."),
    ] = "disagreement",
    crop: Annotated[int, typer.Option(min=0, help="Side of a region in pixels; 0 shows whole pictures.")] = 512,
    per_picture: Annotated[int, typer.Option(min=1, help="Regions of one picture, at most.")] = 1,
    pictures: Annotated[int | None, typer.Option(min=1, help="So many inputs, by the seed. Default: all.")] = None,
    trials: Trials = None,
    repeats: Annotated[int, typer.Option(help="Trials that come twice.")] = 4,
    anchors: Annotated[int, typer.Option(help="Trials with a degraded copy.")] = 4,
    invitations: Annotated[int, typer.Option(help="Links to invite with.")] = 30,
    open_to_all: Annotated[bool, typer.Option("--open", help="Anybody may register with a name.")] = False,
    seed: Annotated[int, typer.Option(help="Of regions, orders and sides.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Make a study of entries: its design, study.toml, and pictures that nothing tells apart."""
    from pydantic import ValidationError

    from ntire.scoring.track import load_track

    rules = load_track(track)
    from ntire.sandbox.scratch import scratch_folder
    from ntire.study.design import Access, Session
    from ntire.study.making import Wish, make_study

    try:
        session = Session(trials=trials or 60, repeats=repeats, anchors=anchors)
        access = Access(open=open_to_all, invitations=invitations)
    except ValidationError as error:
        raise UserError(_told(error)) from None
    wish = Wish(
        title=title, track=rules.name, kind=kind, ties=not no_ties, criteria=criteria, regions=_rule(regions), side=crop,
        per_picture=per_picture, pictures=pictures, session=session, access=access, seed=seed,
    )  # fmt: skip
    with progress() as bars, scratch_folder() as scratch:
        task = bars.add_task("cutting pictures")
        design = make_study(
            folder, _restorations(entries, rules, lq, scratch), lq, gt, wish,
            lambda done, total: bars.update(task, completed=done, total=total),
        )  # fmt: skip
    told = _in_short(folder, design)
    if as_json:
        print_json(told)
    else:
        for line in told["lines"]:
            out.print(line, markup=False)


def _rule(regions: str) -> Any:
    if regions in ("disagreement", "seed", "centre"):
        return regions
    if not Path(regions).is_file():
        raise UserError(f"--regions {regions}: expected disagreement, seed, centre or a CSV file, found none of them.")
    return Path(regions)


def _told(error: Any) -> str:
    """What pydantic finds wrong with options, a line each."""
    return "\n".join(
        f"--{'.'.join(map(str, one['loc'])).replace('_', '-')}: {one['msg']}, found {one['input']!r}."
        for one in error.errors()
    )


def _restorations(given: Sequence[Path], rules: Track, lq: Path, scratch: Path) -> list[Restorations]:
    """The entries of a track, looked at as strangers' are. Raises UserError for fewer than two that can be shown."""
    from ntire.commands.entering import enter, uploads_at
    from ntire.picture.folder import walk
    from ntire.review.acceptance import Entrance
    from ntire.review.uploads import with_images_found
    from ntire.scoring.cache import Cache
    from ntire.scoring.references import References
    from ntire.study.making import Restorations

    with Cache(None) as cache:
        entrance, references = Entrance(cache), References(lq=lq)
        entered = enter(uploads_at(given, scratch, rules, references, say), rules, references, (), entrance, say)
        for one in entered.refused:
            say(f"not shown: {one.path}: {'; '.join(entrance.refused_at(one))}")
        ((_, submissions),) = entered.by_track
        names = {one.name for one in walk(lq).pictures}
        names = {name.rpartition("/")[2] for name in names} if rules.pair_by == "stem" else names
        found = [with_images_found(one, names, rules) for one in submissions]
        if len(found) < 2:
            raise UserError(f"expected two entries of track {rules.name} or more, found {found[0].entry} alone.")
        return [
            Restorations(
                one.entry, one.team,
                {name.rpartition("/")[2]: path for name, path in entrance.pictures(one).items()},
                functools.partial(_decoded, one.root),
            )
            for one in found
        ]  # fmt: skip


def _decoded(root: Path, path: Path) -> Pixels:
    """A stranger's picture, by the decoders in the sandbox."""
    from ntire.files import read_regular
    from ntire.picture.image import UnreadableImage
    from ntire.review.image_check_workers import decoders
    from ntire.review.image_checks import MOST_BYTES

    try:
        data = read_regular(path, MOST_BYTES, root)
    except OSError as error:
        raise UnreadableImage(f"{path}: cannot be read: {error.strerror or error}.") from None
    return decoders().open(path, data, LARGEST)[1]


def _in_short(folder: Path, design: Design) -> dict[str, Any]:
    """What a new study is, and what to do next."""
    from ntire.study.deck import blocks_of
    from ntire.study.design import STUDY

    blocks = len(blocks_of(len(design.entries), design.shown_at_once))
    whole = blocks * len(design.regions)
    observers = -(-whole // design.session.trials)
    lines = [
        f"{folder}: {len(design.entries)} entries, {len(design.regions)} regions, {design.kind}; "
        f"{design.length} trials an observer",
        f"once through everything: {whole} trials, {observers} observer(s)",
        f"Edit {folder / STUDY} before the first vote: questions, instructions, breaks, screening, marks.",
        f"Then: ntire study serve {folder}",
    ]
    return {
        "study": str(folder), "entries": [one.name for one in design.entries], "regions": len(design.regions),
        "trials": design.length, "deck": whole, "lines": lines,
    }  # fmt: skip


@study_app.command(
    "plan",
    epilog="Examples: [bold]ntire study plan --entries 6 --regions 20[/]; "
    "[bold]ntire study plan --study study --observers 10,20,40 --difference 0.55,0.6[/]; "
    "[bold]ntire study plan --entries 8 --regions 30 --kind opinion --difference 0.2,0.4[/]",
)
def study_plan(
    study: Annotated[
        Path | None, typer.Option("--study", help="A study that is made already: its design counts.")
    ] = None,
    entries: Annotated[int, typer.Option(min=2, max=100, help="Entries.")] = 6,
    regions: Annotated[int, typer.Option(min=1, max=10_000, help="Regions of pictures.")] = 20,
    kind: Kind = "pairs",
    no_ties: NoTies = False,
    trials: Trials = None,
    observers: Annotated[str, typer.Option(help="Numbers of observers, separated by commas.")] = "5,10,20,40,80",
    difference: Annotated[
        str | None,
        typer.Option(
            help="How often the better one is preferred where there is a preference, 0.5 to 1; of opinions, in levels."
        ),
    ] = None,
    taste: Annotated[float, typer.Option(min=0, help="How much observers differ about an entry.")] = 0.4,
    peculiarity: Annotated[float, typer.Option(min=0, help="How much an entry differs between pictures.")] = 0.4,
    seed: Annotated[int, typer.Option(help="Of the simulation.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say how many votes tell two entries apart, by simulation, and what that assumes."""
    from dataclasses import asdict

    from ntire.study.design import open_study
    from ntire.study.power import assumptions, powers, sketch
    from ntire.study.simulation import Behaviour

    design = open_study(study) if study else sketch(kind, entries, regions, trials or 60, not no_ties)
    opinion = design.kind == "opinion"
    gaps = _numbers("--difference", difference or ("0.1,0.2,0.3,0.5" if opinion else "0.55,0.6,0.65,0.7,0.75"))
    low, high = (0.0, 4.0) if opinion else (0.5, 1.0)
    if wrong := [gap for gap in gaps if not low < gap < high]:
        raise UserError(f"--difference: expected numbers between {low:g} and {high:g}, found {wrong[0]:g}.")
    counts = _numbers("--observers", observers)
    if wrong := [count for count in counts if count != int(count) or not 1 <= count <= 2000]:
        raise UserError(f"--observers: expected whole numbers from 1 to 2000, found {wrong[0]:g}.")
    how = Behaviour((), taste=taste, peculiarity=peculiarity)
    with progress() as bars:
        task = bars.add_task("simulating", total=len(counts) * len(gaps))
        found = powers(design, [int(one) for one in counts], gaps, how, seed, lambda: bars.advance(task))
    told = assumptions(design, how)
    if as_json:
        print_json({"assumptions": told, "powers": [asdict(one) for one in found]})
    else:
        print_powers(found, gaps, told, opinion)


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise UserError(f"{option}: expected numbers separated by commas, found {text!r}.") from None


@study_app.command(
    "serve",
    epilog="Examples: [bold]ntire study serve study/[/]; "
    "[bold]ntire study serve study/ --port 8300 --root-path /raim --public https://study.example.org[/]",
)
def study_serve(
    study: Study,
    host: Annotated[
        str, typer.Option(help="Address to listen at. Only this machine reaches the default.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any that is free.")] = 8000,
    root_path: Annotated[str, typer.Option(help="Path below which a reverse proxy shows it, such as /study.")] = "",
    public: Annotated[
        str | None, typer.Option(help="Address that observers see, such as https://study.example.org, for the links.")
    ] = None,
) -> None:
    """Serve a study to observers' browsers until Ctrl-C; prints the organiser's link."""
    from ntire.study.serving import root_of, serve
    from ntire.study.session import Site

    root = root_of(root_path)

    def told(site: Site, at: int) -> None:
        base = (public or f"http://{f'[{host}]' if ':' in host else host}:{at}").rstrip("/") + root
        out.print(
            f"observers:  {base}/" + ("  (anybody may register)" if site.design.access.open else ""), markup=False
        )
        out.print(f"organiser:  {base}/admin/{site.keys.admin}", markup=False)
        out.print("The organiser's link shows the invitations and is for you alone. Ctrl-C ends it; no vote is lost.")

    serve(study, host, port, root, told)


@study_app.command(
    "results",
    epilog="Examples: [bold]ntire study results study/ -o results[/]; "
    "[bold]ntire study results study/ --scores submissions-results --marks efficiency.csv -o results[/]; then "
    "[bold]ntire leaderboard board.csv --track srgb --phase3 results/marks.csv[/]",
)
def study_results(
    study: Study,
    folder: Annotated[Path, typer.Option("-o", "--out", help="Folder for tables, marks and the page.")],
    scores: Annotated[
        Path | None, typer.Option(help="Tables of `ntire score` of these entries, to compare the metrics with.")
    ] = None,
    marks: Annotated[
        Path | None,
        typer.Option(help="CSV of other marks, such as efficiency, to stand beside the study's in marks.csv."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Screen observers, estimate how the entries stand, and write tables, marks and a page; also while the study runs."""
    from ntire.study.correlation import read_scores
    from ntire.study.design import open_study
    from ntire.study.results import other_marks, results_of
    from ntire.study.tables import as_json as results_as_json
    from ntire.study.tables import write_results

    design = open_study(study)
    others = other_marks(marks, [(one.name, one.team) for one in design.entries]) if marks else None
    found = results_of(study, read_scores(scores, design) if scores else None)
    write_results(folder, found, others)
    if as_json:
        print_json(results_as_json(found))
        return
    print_results(found)
    tables = "results.csv, pairs.csv, metrics.csv, votes.csv, observers.csv, results.json"
    out.print(f"{folder / 'index.html'}: plots; beside it {tables}", markup=False)
    out.print(f"{folder / 'marks.csv'}: for ntire leaderboard --phase3", markup=False)
    say_missing_marks(design, others[0] if others else ())
