"""A zoo of broken and dishonest entries, one for each code, and the honest ones beside them."""

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from ntire import UserError
from ntire.entry.findings import CODES
from ntire.files import sha256_of
from ntire.picture.image import encode_png, read_pixels
from ntire.review.check import check
from ntire.scoring.track import Budgets, Track, load_track
from tests.made import scene, write_png

NAMES = ("a", "b", "below/c")
MANIFEST = """\
team = "Example"
track = "raim-2025-srgb"
date = 2025-03-01

[claims]
params_m = 1.5
macs_g = 20.0
at = [1024, 1024]
runtime_ms = 30.0
"""
METHOD = """
from ntire.method import Method

class Base(Method, abstract=True):
    pass

class Example(Base):
    team = "Example"
"""
SUBSETS = {"CelebA": 2, "Wider-Test": 1}
README = """\
runtime per image [s] : 10.43
CPU[1] / GPU[0] : 1
Extra Data [1] / No Extra Data [0] : 1
Other description : none
"""


@dataclass
class Case:
    """An entry, and how it is checked."""

    root: Path
    lq: Path | None
    entry: Path
    track: Track | None = None

    @property
    def manifest(self) -> Path:
        return self.root / "submission.toml"

    def image(self, name: str = "a") -> Path:
        return self.root / "images" / f"{name}.png"

    def ship(self, name: str, data: str | bytes) -> Path:
        path = self.root / "method" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def add(self, text: str) -> None:
        self.manifest.write_text(self.manifest.read_text() + text)

    def zipped(self) -> Path:
        return Path(shutil.make_archive(str(self.root), "zip", self.root))

    def report(self):
        return check(self.entry, self.track, lambda track: self.lq)

    def codes(self) -> set[str]:
        return {finding.code for finding in self.report().findings}


@pytest.fixture
def case(tmp_path) -> Case:
    """An honest entry of three images."""
    root, lq = tmp_path / "entry", tmp_path / "lq"
    for number, name in enumerate(NAMES):
        pixels = scene(seed=number)
        write_png(lq / f"{name}.png", pixels)
        write_png(root / "images" / f"{name}.png", pixels // 2 + 40)
    (root / "submission.toml").write_text(MANIFEST)
    return Case(root, lq, root)


def challenge(case: Case) -> None:
    """Turn the entry into a challenge's zip for a track with subsets that pairs by stem."""
    case.track = load_track("face-2025").model_copy(update={"subsets": SUBSETS, "gates": ()})
    shutil.rmtree(case.root)
    for folder, stem in (("CelebA", "a"), ("CelebA", "b"), ("Wider-Test", "c")):
        write_png(case.root / folder / f"{stem}.png", scene(seed=ord(stem)) // 2)
    (case.root / "readme.txt").write_text(README)


def insert_chunk(path: Path, name: bytes, body: bytes, *, checksum: int | None = None) -> None:
    """Put a chunk behind the header of a PNG."""
    data = path.read_bytes()
    crc = zlib.crc32(name + body) if checksum is None else checksum
    path.write_bytes(data[:33] + struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc) + data[33:])


ZOO = {}


def breaks(code, *, also=()):
    def add(change):
        ZOO.setdefault(code, []).append((change, {code, *also}))
        return change

    return add


@breaks("E101")
def text_in_a_zip(case):
    case.entry = case.root.with_suffix(".zip")
    case.entry.write_text("hello")


@breaks("E102")
def zip_slip(case):
    case.entry = case.zipped()
    with zipfile.ZipFile(case.entry, "a") as packed:
        packed.writestr("../../outside.png", b"")


@breaks("E103", also=["E301"])
def link_as_an_image(case):
    case.image().unlink()
    case.image().symlink_to("/etc/passwd")


@breaks("E103", also=["E301", "E302"])
def fifo_as_an_image(case):
    case.image().unlink()
    os.mkfifo(case.image())
    write_png(case.image("new"), scene(seed=7))


@breaks("E104", also=["E301", "E302"])
def duplicate_in_two_cases(case):
    shutil.copy(case.image(), case.image("A"))


@breaks("E105")
def bomb(case):
    case.entry = case.root.with_suffix(".zip")
    with zipfile.ZipFile(case.entry, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("big", "w") as member:
        for _ in range(80):
            member.write(bytes(1 << 20))


@breaks("W106")
def one_folder_more(case):
    case.entry = Path(shutil.make_archive(str(case.root), "gztar", case.root.parent, case.root.name))


@breaks("E201", also=["W314", "W501"])
def no_manifest(case):
    case.manifest.unlink()


@breaks("E202", also=["W314", "W501"])
def broken_toml(case):
    case.add("team = [")


@breaks("E202", also=["W314", "W501"])
def deep_toml(case):
    case.manifest.write_text("a = " + "[" * 60_000)


@breaks("E203", also=["W501"])
def unknown_key(case):
    case.add("[extra]\nx = 1\n")


@breaks("E204", also=["W501"])
def wrong_value(case):
    case.manifest.write_text(MANIFEST.replace("1.5", "nan").replace("Example", ""))


@breaks("E204", also=["E205", "W314", "W501"])
def track_that_is_a_path(case):
    """A manifest's track must not make us open a file of its choice."""
    case.manifest.write_text(MANIFEST.replace("raim-2025-srgb", "/etc/passwd.toml"))


@breaks("E205", also=["W314"])
def unknown_track(case):
    case.manifest.write_text(MANIFEST.replace("raim-2025-srgb", "raim-2099"))


@breaks("E206")
def other_track(case):
    case.track = load_track("raim-2024")


@breaks("W207")
def challenge_zip(case):
    challenge(case)


@breaks("E208", also=["W207", "W314", "W501"])
def empty_readme(case):
    challenge(case)
    case.lq = None
    (case.root / "readme.txt").write_text("runtime per image [s] : fast\n")


@breaks("E301")
def image_missing(case):
    case.image("below/c").unlink()


@breaks("E302")
def image_unexpected(case):
    write_png(case.image("d"), scene(seed=9))


@breaks("E302")
def text_among_the_images(case):
    (case.root / "images" / "notes.txt").write_text("x")


@breaks("E303")
def jpeg_beside_its_png(case):
    write_png(case.root / "images" / "a.bmp", scene(seed=9))


@breaks("E304")
def wrong_size(case):
    write_png(case.image(), scene(80, 96))


@breaks("E316", also=["E206", "E304"])
def several_scales(case):
    case.track = load_track("image-sr-x4")
    for name, scale in (("a", 4), ("b", 3), ("below/c", 4)):
        write_png(case.image(name), scene(40 * scale, 48 * scale))


@breaks("E305")
def alpha(case):
    Image.fromarray(scene()).convert("RGBA").save(case.image())


@breaks("E305")
def gray(case):
    write_png(case.image(), scene()[..., 0])


@breaks("E305")
def palette(case):
    Image.fromarray(scene()).quantize(16).save(case.image())


@breaks("E305")
def sixteen_bits(case):
    write_png(case.image(), scene().astype(np.uint16) * 257)


@breaks("E306")
def jpeg_in_a_png(case):
    Image.fromarray(scene(seed=4)).save(case.image(), "JPEG")


@breaks("E307")
def truncated(case):
    case.image().write_bytes(case.image().read_bytes()[:-200])


@breaks("E307")
def end_cut_off(case):
    """All rows are there: a decoder would not mind."""
    case.image().write_bytes(case.image().read_bytes()[:-6])


@breaks("E307")
def wrong_checksum(case):
    insert_chunk(case.image(), b"tEXt", b"a\0b", checksum=1)


@breaks("E307")
def broken_exif(case):
    insert_chunk(case.image(), b"eXIf", b"neither II nor MM")


@breaks("E307")
def broken_chunk_behind_the_pixels(case):
    """Pillow raises an IndexError there."""
    data = case.image().read_bytes()
    body = b"iCCPname"
    chunk = struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body))
    case.image().write_bytes(data[:-12] + chunk + data[-12:])


@breaks("E307")
def only_a_signature(case):
    case.image().write_bytes(b"\x89PNG\r\n\x1a\n")


@breaks("E308")
def animated(case):
    frames = [Image.fromarray(scene(seed=seed)) for seed in (5, 6)]
    frames[0].save(case.image(), save_all=True, append_images=frames[1:])


@breaks("E309")
def ten_gigapixels(case):
    data = bytearray(case.image().read_bytes())
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    case.image().write_bytes(data)


@breaks("E309")
def long_file(case):
    case.image().write_bytes(case.image().read_bytes() + bytes(3 << 20))


@breaks("E310")
def black(case):
    write_png(case.image(), np.zeros_like(scene()))


@breaks("E311")
def copy_of_the_input(case):
    shutil.copy(case.lq / "a.png", case.image())


@breaks("E311")
def same_pixels_as_the_input(case):
    Image.fromarray(read_pixels(case.lq / "a.png")).save(case.image(), compress_level=1)


@breaks("E312")
def answer_in_the_archive(case):
    case.ship("method.py", METHOD)
    case.ship("cache/0001.dat", case.image("b").read_bytes())


@breaks("E313", also=["W207", "W314"])
def subset_too_small(case):
    challenge(case)
    case.lq = None
    (case.root / "CelebA" / "a.png").unlink()


@breaks("E313", also=["E301"])
def no_images_folder(case):
    (case.root / "images").rename(case.root / "results")


@breaks("W314")
def inputs_unknown(case):
    case.lq = None


@breaks("W315", also=["W207"])
def fewer_inputs_than_the_rules_say(case):
    challenge(case)
    (case.root / "Wider-Test" / "c.png").unlink()
    (case.lq / "below" / "c.png").unlink()


def with_weights(case, digest=None):
    path = case.ship("weights/net.safetensors", b"")
    save_file({"w": torch.ones(3)}, path)
    case.ship("method.py", METHOD)
    case.add(f'[[method.weights]]\nfile = "net.safetensors"\nsha256 = "{digest or sha256_of(path)}"\n')
    return path


@breaks("E401")
def weights_missing(case):
    with_weights(case).unlink()


@breaks("E401")
def weights_of_the_class_missing(case):
    weights = 'weights = (Weights("net.safetensors", sha256="00", license="-", provenance="official"),)'
    case.ship("method.py", METHOD + f"    {weights}\n")


@breaks("E402")
def other_weights(case):
    with_weights(case, "0" * 64)


@breaks("E402")
def other_weights_than_the_class_says(case):
    with_weights(case)
    case.ship("method.py", METHOD + '    weights = (Weights(file="net.safetensors", sha256="12345678"),)\n')


class Runs:
    """Unpickling it writes a file."""

    def __reduce__(self):
        return Path.write_text, (Path("pwned"), "x")


@breaks("E403")
def pickle_that_writes_a_file(case):
    case.ship("method.py", METHOD)
    case.ship("weights/net.pth", pickle.dumps(Runs()))


@breaks("E403")
def pickle_under_another_name(case):
    case.ship("method.py", METHOD)
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(3)}, buffer)
    case.ship("weights/net.dat", buffer.getvalue())


@breaks("E404")
def no_method(case):
    case.ship("method.py", "class Method:\n    pass\nclass Mine(Method):\n    pass\n")


@breaks("E405")
def two_methods(case):
    case.ship("method.py", METHOD + "class Other(Example):\n    pass\n")


@breaks("E406")
def no_python(case):
    case.ship("method.py", "class :")


@breaks("E406")
def very_deep_python(case):
    case.ship("method.py", "x = " + "(" * 100_000)


@breaks("E407")
def code_elsewhere(case):
    case.ship("main.py", METHOD)


@breaks("E407")
def code_outside(case):
    case.add('[method]\nfile = "../../etc/passwd"\n')


@breaks("W408")
def weights_nobody_declared(case):
    save_file({"w": torch.ones(3)}, case.ship("weights/net.safetensors", b""))
    case.ship("method.py", METHOD)


@breaks("E409")
def cut_weights(case):
    path = with_weights(case, "0" * 64)
    path.write_bytes(path.read_bytes()[:-1])
    case.manifest.write_text(case.manifest.read_text().replace("0" * 64, sha256_of(path)))


@breaks("W501")
def nothing_claimed(case):
    case.manifest.write_text(MANIFEST.partition("[claims]")[0])


def with_budgets(case):
    case.track = load_track("raim-2025-srgb").model_copy(
        update={"budgets": Budgets(params_m=1.0, macs_g=30.0, at=(1024, 1024))}
    )


@breaks("E502")
def over_budget(case):
    with_budgets(case)


@breaks("E503")
def claimed_at_another_size(case):
    with_budgets(case)
    case.manifest.write_text(MANIFEST.replace("1.5", "0.5").replace("[1024, 1024]", "[256, 256]"))


def test_an_honest_entry_has_no_findings_in_any_form(case):
    case.ship("method.py", METHOD)
    with_weights(case)
    (case.root / ".DS_Store").write_text("x")
    assert case.report().findings == ()
    for form in ("zip", "tar", "gztar"):
        case.entry = Path(shutil.make_archive(str(case.root), form, case.root))
        report = case.report()
        assert report.findings == ()
        assert (report.team, report.track, report.images) == ("Example", "raim-2025-srgb", 3)


@pytest.mark.parametrize(
    ("change", "codes"),
    [pytest.param(*one, id=f"{code} {one[0].__name__}") for code in sorted(ZOO) for one in ZOO[code]],
)
def test_what_is_wrong_is_found_and_nothing_else(case, change, codes, monkeypatch):
    monkeypatch.chdir(case.root.parent)
    change(case)
    report = case.report()
    assert {finding.code for finding in report.findings} == codes
    assert report.valid == all(code.startswith("W") for code in codes)
    assert all(one.expected and one.found and one.do for one in report.findings)
    json.dumps(report.as_json(), allow_nan=False)
    assert not Path("pwned").exists()


def test_the_zoo_has_an_animal_for_every_code():
    """Those that only running code shows are in test_verify."""
    assert set(ZOO) == {code for code in CODES if code not in ("E410", "E411") and code[1] != "6"}


def test_all_problems_are_told_at_once(case):
    for change in (unknown_key, wrong_size, two_methods, link_as_an_image, image_missing):
        change(case)
    assert case.codes() == {"E103", "E203", "E301", "E405", "W501"}
    case.image().unlink()
    wrong_size(case)
    assert case.codes() == {"E203", "E301", "E304", "E405", "W501"}


def test_a_finding_names_the_file_what_was_expected_and_what_was_found(case):
    wrong_size(case)
    (finding,) = case.report().findings
    assert (finding.file, finding.expected, finding.found) == (
        "images/a.png", "40 x 48 as its input", "80 x 96, which is x2",
    )  # fmt: skip


def test_an_input_of_one_colour_excuses_its_output(case):
    for path in (case.lq / "a.png", case.image()):
        write_png(path, np.full((40, 48, 3), 7, np.uint8))
    assert case.codes() == set()


def test_a_challenge_zip_is_read_flat_in_subset_folders_or_in_one_folder(case):
    challenge(case)
    case.lq = None
    report = case.report()
    assert ({one.code for one in report.findings}, report.images) == ({"W207", "W314"}, 3)
    for path in sorted(case.root.glob("*/*.png")):
        path.rename(case.root / path.name)
    assert case.codes() == {"W207", "W314"}
    # Around it a folder, as many a program packs it.
    case.root = case.root.rename(case.root.with_name("inner"))
    case.entry = Path(shutil.make_archive(str(case.root), "zip", case.root.parent, "inner"))
    assert case.codes() == {"W106", "W207", "W314"}


def test_a_runtime_in_a_readme_is_a_claim(case):
    challenge(case)
    case.lq = None
    case.track = case.track.model_copy(update={"budgets": Budgets(runtime_ms=1000.0)})
    finding = next(one for one in case.report().findings if one.code == "E502")
    assert (finding.expected, finding.found) == ("runtime_ms <= 1000", "10430, 943.000% over")


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ("import ntire.method\nclass A(ntire.method.Method): pass", set()),
        ("import ntire.method as m\nclass A(m.Method): pass", set()),
        ("from ntire import method as m\nclass A(m.Method): pass", set()),
        ("from ntire.method import Method as Base\nclass A(Base): pass", set()),
        ("from ntire.method import *\nclass A(Method): pass", set()),
        ("from base import Ours\nclass A(Ours): pass", set()),
        ("from .base import Ours\nclass A(Ours): pass", set()),
        ("try:\n    from ntire.method import Method\nexcept ImportError:\n    raise\nclass A(Method): pass", set()),
        ("from ntire.method import Method\nclass A(Method): pass\nclass B(Method): pass", {"E405"}),
        ("from other import Method\nclass A(Method): pass", {"E404"}),
        ("def f():\n    from ntire.method import Method\n    class A(Method): pass", {"E404"}),
        ("import sys\nsys.exit(1)", {"E404"}),
    ],
)
def test_methods_are_counted_by_what_the_code_says_without_running_it(case, source, codes):
    case.ship("method.py", source)
    case.ship("base.py", "from ntire.method import Method\nimport method\nclass Ours(Method, abstract=True): pass")
    assert case.codes() == codes


def test_weights_with_an_address_need_not_be_in_the_entry(case):
    case.ship("method.py", METHOD + '    weights = (Weights("x.safetensors", sha256="1", urls=("https://x",)),)\n')
    assert case.codes() == set()


def test_an_entry_of_the_catalogue_ships_no_weights(case):
    case.add(f'[method]\nname = "MiAlgo"\n[[method.weights]]\nfile = "x.safetensors"\nsha256 = "{"0" * 64}"\n')
    assert case.codes() == set()


def test_the_images_of_a_raw_track_have_the_size_of_the_mosaic(case):
    case.track = load_track("raim-2025-raw")
    case.manifest.write_text(MANIFEST.replace("srgb", "raw"))
    shutil.rmtree(case.lq)
    case.lq.mkdir()
    (case.lq / "frames.toml").write_text('cfa = "RGGB"\nblack_level = 64\nwhite_level = 1023\n')
    for name in NAMES:
        (case.lq / name).parent.mkdir(exist_ok=True)
        shutil.copy(case.lq / "frames.toml", (case.lq / name).with_suffix(".toml"))
        (case.lq / f"{name}.png").write_bytes(encode_png(scene(seed=2)[..., 0].astype(np.uint16) * 4))
    assert case.codes() == set()
    wrong_size(case)
    assert case.codes() == {"E304"}


def test_names_and_values_of_an_entry_cannot_reach_the_terminal(ntire, case):
    case.manifest.write_text(MANIFEST.replace("Example", "=cmd\\u001b[2J").replace("raim-2025-srgb", "[red]\\u009b1m"))
    write_png(case.root / "images" / "=1+1.png", scene())
    write_png(case.root / "images" / "a\x1b]0;x\x07.png", scene())
    for words in ((), ("--json",)):
        ran = ntire("check", case.root, "--lq", case.lq, *words)
        assert ran.code == 1
        assert not any(letter in ran.out + ran.err for letter in "\x1b\x07\x9b")
        assert "[red]" in ran.out


def test_exit_codes_tell_an_entry_from_a_mistake_of_the_user(ntire, case):
    assert ntire("check", case.root, "--lq", case.lq).code == 0
    wrong_size(case)
    ran = ntire("check", case.zipped(), "--lq", case.lq, "--track", "srgb", "--json")
    assert ran.code == 1
    (finding,) = ran.json()["findings"]
    assert set(finding) == {"code", "problem", "file", "expected", "found", "do"}
    assert finding["code"] == "E304"
    for words, message in (
        (["nowhere.zip"], "found no such file"),
        ([case.root, "--lq", "nowhere"], "expected a folder of inputs"),
        ([case.root, "--track", "rwa"], "unknown track"),
    ):
        ran = ntire("check", *words)
        assert ran.code == 2
        assert message in ran.err


def test_inputs_are_found_where_score_finds_them(ntire, case, monkeypatch):
    monkeypatch.setenv("NTIRE_DATA", str(case.root.parent / "data"))
    shutil.copytree(case.lq, case.root.parent / "data" / "raim-2025-srgb" / "lq")
    image_missing(case)
    ran = ntire("check", case.root)
    assert ran.code == 1
    assert "below/c.png" in ran.out


def test_unreadable_inputs_are_the_users_mistake(case):
    (case.lq / "a.png").write_text("x")
    with pytest.raises(UserError):
        case.report()


FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=5)


@settings(max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    flips=FLIPS,
    part=st.sampled_from(["images/a.png", "submission.toml", "method/method.py", "method/weights/net.safetensors"]),
)
def test_no_damage_to_a_file_is_a_traceback(tmp_path_factory, flips, part):
    root = tmp_path_factory.mktemp("damaged")
    case = Case(root / "entry", root / "lq", root / "entry")
    write_png(case.lq / "a.png", scene())
    write_png(case.image(), scene() // 2)
    case.manifest.write_text(MANIFEST)
    with_weights(case)
    data = bytearray((case.root / part).read_bytes())
    for place, value in flips:
        data[int(place * len(data))] = value
    (case.root / part).write_bytes(data)
    json.dumps(case.report().as_json(), allow_nan=False)


def test_what_systems_leave_behind_and_a_bom_break_no_rule(case):
    for name in (
        "Thumbs.db",
        "desktop.ini",
        ".DS_Store",
        "._a.png",
        "@eaDir/a.png",
        ".ipynb_checkpoints/a-checkpoint.png",
    ):
        left = case.root / "images" / name
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(b"left behind")
    manifest = case.root / "submission.toml"
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes())
    assert case.report().findings == ()


def test_an_entry_made_of_inputs_with_separate_accents_is_valid(case):
    import unicodedata

    first = next(case.lq.rglob("*.png"))
    name = "caf\u00e9.png"
    (case.root / "images" / first.relative_to(case.lq)).rename(case.root / "images" / name)
    first.rename(case.lq / unicodedata.normalize("NFD", name))
    assert case.report().findings == ()
