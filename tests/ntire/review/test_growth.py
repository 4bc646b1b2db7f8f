"""Text of strangers takes time and memory in proportion to its length, or is refused: no parser can be made to hang."""

import gc
import io
import json
import secrets
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib

import pytest

from ntire.entry.archive import unpack
from ntire.entry.manifest import MethodUsed
from ntire.review.check import check
from ntire.review.code_checks import look_at_method
from ntire.review.image_checks import Wanted, look_at
from ntire.review.source_code import methods_in
from ntire.sandbox.child import Child
from tests.made import scene, write_png

STEPS = range(1, 11)
"""Every size is this often the smallest."""
SLACK = 4.0
"""How many times more than in proportion a noisy machine may take."""


def layered(folder, step):
    """J3: two files a layer, each importing both of the next: 2^layers ways through."""
    (folder / "method").mkdir()
    for layer in range(3 * step):
        text = "".join(f"from m{layer + 1}{one} import *\n" for one in "ab")
        for one in "ab":
            (folder / "method" / f"m{layer}{one}.py").write_text(text)
    (folder / "method" / "method.py").write_text("from m0a import *\nfrom m0b import *\n")
    return code(folder)


def many_statements(folder, step):
    return written(folder, "a\n" * 2000 * step)


def deep_nesting(folder, step):
    return written(folder, "x = " + "(" * 20 * step + ")" * 20 * step)


def many_weights(folder, step):
    calls = ", ".join(f"Weights('a{number}', None)" for number in range(50 * step))
    return written(folder, f"from ntire.method import Method\nclass A(Method):\n    weights = ({calls},)\n")


def safetensors_header(folder, step):
    names = {f"t{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(500 * step)}
    header = json.dumps(names).encode()
    (folder / "method").mkdir()
    (folder / "method" / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return lambda: look_at_method(folder, ["method/a.safetensors"], MethodUsed())


def toml_keys(folder, step):
    (folder / "submission.toml").write_text("".join(f"k{number} = {number}\n" for number in range(100 * step)))
    return lambda: check(folder, None, lambda track: None)


def nested_toml(folder, step):
    (folder / "submission.toml").write_text("a = " + "[" * 30 * step + "]" * 30 * step)
    return lambda: check(folder, None, lambda track: None)


def pax_headers(folder, step):
    """J4: keys of one global header, which tarfile copies to every member."""
    keys = {f"k{number}": "v" for number in range(100 * step)}
    path = folder / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers=keys) as packed:
        for number in range(20 * step):
            packed.addfile(tarfile.TarInfo(f"images/{number}.png"), io.BytesIO(b""))
    return lambda: unpack(path, folder / secrets.token_hex(4))


def many_members(folder, step):
    path = folder / "a.tar"
    with tarfile.open(path, "w") as packed:
        for number in range(60 * step):
            packed.addfile(tarfile.TarInfo(f"images/{number}.png"), io.BytesIO(b""))
    return lambda: unpack(path, folder / secrets.token_hex(4))


def many_zip_members(folder, step):
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for number in range(60 * step):
            packed.writestr(f"images/{number}.png", b"")
    return lambda: unpack(path, folder / secrets.token_hex(4))


def texts_in_a_picture(folder, step):
    return picture(folder, [(b"tEXt", b"key%d\0" % n + b"x" * 100) for n in range(200 * step)])


def packed_texts_in_a_picture(folder, step):
    """Each a thousand times as long as it looks."""
    return picture(folder, [(b"zTXt", b"key%d\0\0" % n + zlib.compress(bytes(1 << 18))) for n in range(8 * step)])


def packed_profile_in_a_picture(folder, step):
    return picture(folder, [(b"iCCP", b"name\0\0" + zlib.compress(bytes(step << 22)))])


def exif_in_a_picture(folder, step):
    """A directory of values that all lie in the same place, and point on to itself."""
    entries = 500 * step
    entry = b"".join(struct.pack("<HHII", number, 7, 1 << 16, 8) for number in range(entries))
    tiff = b"II*\0" + struct.pack("<IH", 8, entries) + entry + struct.pack("<I", 8) + bytes(1 << 16)
    return picture(folder, [(b"eXIf", tiff)])


def picture(folder, chunks):
    """What a decoder's process does with a picture that has these chunks behind its header."""
    path = write_png(folder / "a.png", scene())
    data = path.read_bytes()
    made = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    ]
    path.write_bytes(data[:33] + b"".join(made) + data[33:])
    return lambda: look_at(Wanted(path, "a.png", size=(40, 48)))


def code(folder):
    """What is done with code where it is parsed."""
    texts = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.py")}
    return lambda: methods_in(texts, "method/method.py")


def written(folder, text):
    (folder / "method").mkdir()
    (folder / "method" / "method.py").write_text(text)
    return code(folder)


PARSED = (
    layered, many_statements, deep_nesting, many_weights, safetensors_header, toml_keys, nested_toml, pax_headers, many_members,
    many_zip_members, texts_in_a_picture, packed_texts_in_a_picture, packed_profile_in_a_picture, exif_in_a_picture,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _only_what_is_new_is_collected():
    """What other tests have imported would be walked through before every measurement."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("made", PARSED, ids=lambda one: one.__name__)
def test_time_and_memory_grow_no_faster_than_the_input(tmp_path, made):
    """Of ten sizes. The processor's time, the best of three where a busy machine lengthens it; memory of the ends."""
    spent: list[float] = []
    peaks = []
    for step in STEPS:
        folder = tmp_path / f"{made.__name__}{step}"
        folder.mkdir()
        parse = made(folder, step)
        most = SLACK * step * max(spent[0], 0.01) if spent else 5
        spent.append(min(_until(most, parse)))
        assert spent[-1] <= min(most, 5), (step, spent)
        if step in (1, STEPS[-1]):
            peaks.append(max(_peak_of(parse), 1 << 18))
    assert peaks[1] <= SLACK * STEPS[-1] * peaks[0], peaks


def _until(most, parse):
    for _ in range(3):
        gc.collect()
        began = time.process_time()
        parse()
        spent = time.process_time() - began
        yield spent
        if spent <= most:
            return


def _peak_of(parse):
    """Bytes; what compiled libraries take for themselves is not among them."""
    tracemalloc.start()
    parse()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def entry(folder, text):
    (folder / "method").mkdir()
    (folder / "method" / "method.py").write_text(text)
    return lambda: look_at_method(folder, ["method/method.py"], MethodUsed())


def test_memory_of_a_source_file_is_bounded(tmp_path):
    """J3: a file of 4 MiB took 3.7 GB; one that is longer than any method's code is not parsed."""
    parse = entry(tmp_path, "a\n" * (2 << 20))
    assert [one.code for one in parse()] == ["E406"]
    assert _peak_of(parse) < 4 << 20


def test_code_is_parsed_where_its_memory_is_bounded_and_not_here(tmp_path):
    """256 KiB make a tree of 230 MiB."""
    assert _peak_of(entry(tmp_path, "a\n" * (1 << 17))) < 4 << 20


def test_imports_are_followed_for_so_long_and_no_further():
    chain = {f"method/m{number}.py": f"from m{number + 1} import *\n" + " " * 250_000 for number in range(20)}
    _, _, problem = methods_in({"method/method.py": "from m0 import *\n", **chain}, "method/method.py")
    assert "imports of more than 64 files or 2,097,152 bytes" in problem


def test_code_that_ends_its_parser_is_a_finding(tmp_path, monkeypatch):
    ask = Child.ask

    def dies(child, request, *rest):
        if request["op"] == "methods":
            child.kill()
        return ask(child, request, *rest)

    monkeypatch.setattr(Child, "ask", dies)
    (finding,) = entry(tmp_path, "a = 1")()
    assert (finding.code, "ended" in finding.found) == ("E406", True)


def test_a_bomb_of_extended_headers_is_refused(tmp_path):
    pax_headers(tmp_path, 10)
    (finding,) = unpack(tmp_path / "a.tar", tmp_path / "out2")
    assert (finding.code, finding.expected) == ("E105", "at most 32 keys in extended headers")
