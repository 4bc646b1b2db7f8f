"""The pages of a competition, in Markdown, from a track's rules alone; what only the organisers know is marked."""

from ntire.codabench.competition import Competition, column_key
from ntire.scoring.metrics import METRICS
from ntire.scoring.track import Track, formula, in_words
from ntire.text import markdown_table

TO_FILL = "**To be filled in by the organisers:**"


def pages_of(track: Track, how: Competition) -> dict[str, str]:
    """Overview, evaluation, submission and terms, by title."""
    return {
        "Overview": _overview(track, how),
        "Evaluation": _evaluation(track),
        "Submitting": _submitting(track, how),
        "Terms": _terms(track),
    }


def _overview(track: Track, how: Competition) -> str:
    contact = f"Questions: {how.contact}." if how.contact else f"{TO_FILL} whom to ask."
    return "\n\n".join(
        [
            f"# {how.title or track.title}",
            f"Inputs are {_inputs(track)}; results have {_size(track)}. Entries are ranked by {_ranked_by(track)}.",
            f"{how.phase}: from {how.start.isoformat()}" + (f" to {how.end.isoformat()}." if how.end else "."),
            f"{TO_FILL} the task in a few sentences, dates, prizes, data sets, how to cite.",
            f"Source of the rules: {track.source}.",
            contact,
        ]
    )


def _evaluation(track: Track) -> str:
    rows = [
        [
            name,
            column_key(name),
            "more is better" if METRICS[name].higher_is_better else "less is better",
            {"gt": "the ground truth", "lq": "the input"}.get(str(METRICS[name].against), "nothing"),
            str(track.border_of(name)),
        ]
        for name in track.metrics
    ]
    parts = [
        "# Evaluation",
        markdown_table(["metric", "column", "", "compared with", "pixels cut at the border"], rows),
        f"Total: `{formula(track)}` of the means over all images; more is better."
        if track.terms
        else "There is no total.",
        "An image that is missing, unreadable or of another size invalidates an entry; nothing is resized.",
        f"The rules in full:\n\n```\n{in_words(track)}\n```",
    ]
    if not track.verified:
        parts.append(f"The formula is not the organisers' own word: {track.remark}" if track.remark else "")
    return "\n\n".join(filter(None, parts))


def _submitting(track: Track, how: Competition) -> str:
    steps = [
        "# Submitting",
        "Upload one zip. In it, at the top or in a folder `images/`, lie your results: one for each input, of the input's "
        f"name, {_size(track)}, as {_formats(track)}. Folders of subsets stay as they are in the inputs.",
        "A `readme.txt` with lines such as these tells who you are, and what your method costs:",
        "```\nTeam name: ...\nruntime per image [s]: ...\nCPU[1] / GPU[0]: ...\nExtra Data [1] / No Extra Data [0]: ...\n```",
        "Try it at home first, with the grader's own program and the rules of the starting kit:",
        "```\nntire check mine.zip --track track.toml --lq inputs/\n```",
        "A refused upload has no score. The first lines of its log and of its detailed results say what is wrong, with codes, "
        "what was expected, what was found and what to do; all problems are listed at once.",
        "The starting kit has an upload that is accepted: the inputs themselves.",
    ]
    if how.code:
        steps.append(
            "Code: upload a zip with `method.py` and `weights/` instead (`ntire new-method my-method` writes one that works). "
            "It runs in a sandbox without network, on the organisers' machine, and its results are scored."
        )
    return "\n\n".join(steps)


def _terms(track: Track) -> str:
    budgets = [f"- {limit.rule}" for limit in track.budgets.hold({})]
    gates = [
        f"- {gate.name}: at most {gate.max_failures} images below the threshold of {gate.metric}"
        for gate in track.gates
    ]
    return "\n\n".join(
        [
            "# Terms",
            "By taking part you accept these rules. They are written from the rules by which entries are scored.",
            "\n".join(["What an entry must keep to:", "", *budgets, *gates])
            if budgets or gates
            else "Method and cost are free.",
            "- Results are made by one method from the inputs alone; nobody edits them by hand.\n"
            "- Data beyond the challenge's, and tuning by its own metrics, are stated in the readme.txt.\n"
            "- The best entries hand in their code, which is run again; results that it does not reproduce are not ranked.",
            f"{TO_FILL} who may take part, size of teams, licence of data and code, publication, privacy.",
        ]
    )


def _inputs(track: Track) -> str:
    kinds = {"raw": "raw frames", "srgb": "pictures", "face": "faces", "general": "pictures", "esr": "small pictures"}
    return kinds[track.inputs]


def _size(track: Track) -> str:
    return (
        "the size of their inputs" if track.scale == 1 else f"{track.scale} times the height and width of their inputs"
    )


def _formats(track: Track) -> str:
    from ntire.picture.suffixes import in_words as formats_in_words

    return formats_in_words(track.results)


def _ranked_by(track: Track) -> str:
    return f"`{formula(track)}`" if track.terms else ", ".join(track.metrics)
