"""What `ntire check` can find: every problem has a stable code, what is wrong in words, and what to do about it.

Codes that begin with E break a rule; W are remarks. A code is never given another meaning; new ones are added at the end.
"""

from dataclasses import dataclass

from ntire.text import markdown_table, printable

LONGEST = 300
"""Characters of anything from an entry that are shown; a hostile name may have any length."""


@dataclass(frozen=True)
class Code:
    """One kind of problem."""

    problem: str
    do: str


CODES = {
    "E101": Code(
        "archive cannot be read", "Make it again as a .zip (stored or deflated, not encrypted), .tar or .tar.gz."
    ),
    "E102": Code("unsafe name", "Use relative names without .., backslashes or control characters."),
    "E103": Code("not a regular file", "Put the file itself in its place; links and devices are not followed."),
    "E104": Code("two names that differ in case only, or not at all", "Rename or remove one of them."),
    "E105": Code("over a limit of the archive", "Take out what does not belong to the entry."),
    "W106": Code("everything lies in one folder more", "Tolerated; better pack what is inside that folder."),
    "E201": Code("no manifest", "Add a submission.toml (submissions/README.md), or the readme.txt of a challenge."),
    "E202": Code("manifest cannot be read", "Write it as TOML in UTF-8."),
    "E203": Code("unknown key in the manifest", "Correct its name, or take it out."),
    "E204": Code("wrong or missing value in the manifest", "Give a value as the table in submissions/README.md says."),
    "E205": Code("unknown track", "Use a full name from `ntire tracks`, or name the track with --track."),
    "E206": Code("entry is for another track", "Correct the manifest, or check it for its own track."),
    "W207": Code("readme.txt instead of a manifest", "Tolerated."),
    "E208": Code("readme.txt lacks a line", "Write the four lines that the challenges ask for."),
    "E301": Code("image missing", "Add it: an entry with a gap is listed, not ranked."),
    "E302": Code("unexpected file among the images", "Take it out, or give it the name of its input."),
    "E303": Code("several images for one input", "Keep one of them."),
    "E304": Code("wrong size", "Make it at the size of its input times the track's scale: nothing is resized here."),
    "E305": Code("wrong mode", "Save it as an 8-bit RGB PNG, without alpha or palette."),
    "E306": Code("not a PNG", "Save the picture as a PNG; another suffix alone does not do it."),
    "E307": Code("image truncated or damaged", "Write it again and compare the copies."),
    "E308": Code("image is animated", "Save the one frame that is meant."),
    "E309": Code("image too large", "Save it at the size that it must have, without other data in the file."),
    "E310": Code("all pixels are equal", "Look for a method that failed, such as NaN written as black."),
    "E311": Code("equal to its input", "Submit what the method made of it."),
    "E312": Code(
        "equal to an image shipped with the entry", "Take the finished images out: code must make its images."
    ),
    "E313": Code("wrong number of images", "Submit one image for each input of the track."),
    "W314": Code("not compared with the inputs", "Name them with --lq DIR: names, sizes and copies are checked then."),
    "W315": Code("inputs are not those of the rules", "Name the folder with all inputs of the track with --lq DIR."),
    "E316": Code("images of several scales in one entry", "Make all of them again at the track's scale."),
    "E401": Code("weights missing", "Put the file into method/weights/."),
    "E402": Code("weights are not the declared ones", "Correct the sha256, or put the right file there."),
    "E403": Code(
        "pickle instead of safetensors", "Convert it with safetensors.torch.save_file; a pickle can run code."
    ),
    "E404": Code("no Method class", "Declare one subclass of ntire.method.Method in method/method.py."),
    "E405": Code("several Method classes", "Keep one; mark what others build on with `abstract=True`."),
    "E406": Code("code cannot be read", "Save it as valid Python in UTF-8."),
    "E407": Code("code missing", "Put it into method/method.py, or correct `file` of [method]."),
    "W408": Code("weights without a declared sha256", "List them under [[method.weights]]."),
    "E409": Code("safetensors file damaged", "Write it again and compare the copies."),
    "E410": Code(
        "code does not import", "Run `python method/method.py` where only ntire and its packages are installed."
    ),
    "E411": Code(
        "method cannot be made ready", "Ship its weights in method/weights/, or name fetched ones in the manifest."
    ),
    "W501": Code("no claims", "State params_m, macs_g with its size, and runtime_ms under [claims]."),
    "E502": Code("over a budget of the track", "Stay within the budget, or correct the claim."),
    "E503": Code("nothing claimed for a budget of the track", "State it under [claims], at the size of the rules."),
    "E601": Code("image is not what the code makes", "Submit what the submitted code makes, or the code that made it."),
    "W602": Code("images differ, the score does not", "Tolerated: the total stays within the track's tolerance."),
    "E603": Code("output follows the name of the input", "Compute it from the pixels."),
    "E604": Code("a repeated picture is faster than a new one", "Keep nothing between two pictures."),
    "E605": Code("output does not follow the pixels", "Compute it from the pixels: look nothing up."),
    "E606": Code("two runs give two images", "Seed every random number, or set `deterministic = false`."),
    "E607": Code("code fails on an image", "Run `ntire run --team ./method` on the inputs."),
    "E608": Code("no answer within the time limit", "Make it faster, or ask for a longer --time-limit."),
    "E609": Code(
        "over a limit of the sandbox", "Take less memory, fewer processes, print less, or ask for a higher limit."
    ),
    "E610": Code("code ended without an answer", "Run `ntire run --team ./method` on the inputs."),
    "E611": Code("claimed score is not reproduced", "Correct [score], or the images."),
    "E612": Code("no code to verify", "Put it into method/method.py, or name `file` of [method]."),
    "E613": Code("verdict that the entry brings itself", "Take verification.json out: only who verifies writes it."),
    "E614": Code(
        "claim below what was counted",
        "State params_m and macs_g of all that runs, as `ntire cost --team ./method` does.",
    ),
    "W615": Code(
        "claim below the runtime measured on that device",
        "Correct runtime_ms, or name the device that it was taken on.",
    ),
    "W616": Code(
        "cost cannot be measured, or is doubtful",
        "See what `ntire cost` and `ntire bench` say of it.",
    ),
    "E617": Code(
        "code of another scale than the track", "Submit the network of the track's scale and set its `scale`."
    ),
}


@dataclass(frozen=True)
class Finding:
    """One problem of one file. Whatever comes from the entry is made safe to print when it is made."""

    code: str
    file: str
    """Relative to the entry; empty for the entry as a whole."""
    expected: str
    found: str

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"no code {self.code}")
        for name in ("file", "expected", "found"):
            text = printable(getattr(self, name)).replace("\n", "\\n")
            object.__setattr__(self, name, text if len(text) <= LONGEST else f"{text[:LONGEST]}...")

    @property
    def breaks_a_rule(self) -> bool:
        return self.code.startswith("E")

    @property
    def problem(self) -> str:
        return CODES[self.code].problem

    @property
    def do(self) -> str:
        return CODES[self.code].do

    def as_json(self) -> dict[str, str]:
        """One object of `ntire check --json`."""
        return {
            "code": self.code,
            "problem": self.problem,
            "file": self.file,
            "expected": self.expected,
            "found": self.found,
            "do": self.do,
        }


def markdown() -> str:
    """The table of codes in submissions/README.md."""
    rows = [[code, what.problem, what.do] for code, what in CODES.items()]
    return markdown_table(["code", "problem", "what to do"], rows)
