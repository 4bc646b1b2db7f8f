"""Archives of strangers: whatever is in them, nothing is written outside the target, and the answer is a finding."""

import gzip
import io
import os
import stat
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ntire import UserError
from ntire.entry.archive import ArchiveLimits, survey, unpack

SMALL = ArchiveLimits(files=30, file_bytes=1 << 18, total_bytes=1 << 20, ratio=10, slack_bytes=1 << 16, depth=5)
CALM = settings(max_examples=80, suppress_health_check=list(HealthCheck), derandomize=True)


def make_zip(path, members, mode=0o100644):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members:
            info = zipfile.ZipInfo("x")
            info.filename = name
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, data)
    return path


def member(name, data=b"", kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info, data


def make_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as packed:
        for info, data in members:
            packed.addfile(info, io.BytesIO(data) if data else None)
    return path


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def codes(findings):
    return [finding.code for finding in findings]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_what_is_packed_comes_out(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    wanted = {"submission.toml": b"x", "images/a b.png": b"1" * 70_000, "images/é/b.png": b""}
    if kind == "zip":
        make_zip(path, wanted.items())
    else:
        folder = [member("./", kind=tarfile.DIRTYPE), member("images", kind=tarfile.DIRTYPE)]
        make_tar(path, [*folder, *(member(f"./{name}", data) for name, data in wanted.items())], f"w:{kind[4:]}")
    assert unpack(path, tmp_path / "out") == []
    assert files_in(tmp_path / "out") == wanted
    assert {path.name for path in tmp_path.iterdir()} == {path.name, "out", "home", "work"}


UNSAFE = (
    "../x", "a/../../x", "/etc/x", "C:/x", "a\\b", "a\nb", "a\x1b[2Jb", "a\u202eb", "cafe\u0301", "a//b", "x" * 256,
)  # fmt: skip


def test_names_that_begin_with_a_dot_and_a_slash_are_the_names_without_it_in_zips_as_in_tars(tmp_path):
    make_zip(
        tmp_path / "a.zip", [("./", b""), ("./submission.toml", b"1"), ("./images/", b""), ("././images/a.png", b"2")]
    )
    assert unpack(tmp_path / "a.zip", tmp_path / "out") == []
    assert files_in(tmp_path / "out") == {"submission.toml": b"1", "images/a.png": b"2"}


def zip_of_bytes(path, raw):
    """A zip whose only member is named by `raw`, without the flag that says UTF-8."""
    make_zip(path, [("x" * len(raw), b"1")])
    path.write_bytes(path.read_bytes().replace(b"x" * len(raw), raw))


def test_a_name_in_gbk_is_named_as_such_and_one_in_utf_8_without_the_flag_is_read(tmp_path):
    zip_of_bytes(tmp_path / "gbk.zip", "图片/照1.png".encode("gbk"))
    (found,) = unpack(tmp_path / "gbk.zip", tmp_path / "one")
    assert (found.code, found.file) == ("E102", "图片/照1.png")
    assert "GBK" in found.found
    zip_of_bytes(tmp_path / "mac.zip", "图片/照1.png".encode())
    assert unpack(tmp_path / "mac.zip", tmp_path / "two") == []
    assert files_in(tmp_path / "two") == {"图片/照1.png": b"1"}
    zip_of_bytes(tmp_path / "dos.zip", "café.png".encode("cp437"))
    assert unpack(tmp_path / "dos.zip", tmp_path / "three") == []
    assert files_in(tmp_path / "three") == {"café.png": b"1"}


@pytest.mark.parametrize(
    ("kind", "name"), [*(("tar", name) for name in UNSAFE), *(("zip", name) for name in (*UNSAFE, "a\x00b", ""))]
)
def test_an_unsafe_name_is_refused_and_the_rest_unpacked(tmp_path, kind, name):
    path = tmp_path / "a"
    if kind == "zip":
        make_zip(path, [("good", b"1"), (name, b"2")])
    else:
        make_tar(path, [member("good", b"1"), member(name, b"2")])
    findings = unpack(path, tmp_path / "out")
    assert codes(findings) == ["E102"]
    assert all(letter.isprintable() for letter in findings[0].file)
    assert files_in(tmp_path / "out") == {"good": b"1"}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a character device"),
        (tarfile.BLKTYPE, "a block device"),
        (tarfile.FIFOTYPE, "a FIFO"),
        (tarfile.GNUTYPE_SPARSE, "a sparse or unknown member"),
        (b"z", "a sparse or unknown member"),
    ],
)
def test_only_regular_files_come_out_of_a_tar(tmp_path, kind, words):
    path = make_tar(tmp_path / "a.tar", [member("images/passwd", kind=kind, link="/etc/passwd"), member("b", b"1")])
    findings = unpack(path, tmp_path / "out")
    assert [(one.code, one.found) for one in findings] == [("E103", words)]
    assert files_in(tmp_path / "out") == {"b": b"1"}


def test_a_link_in_a_zip_is_refused_and_mode_bits_are_dropped(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("images/a.png", b"/etc/passwd")], stat.S_IFLNK | 0o777)
    assert codes(unpack(path, tmp_path / "out")) == ["E103"]
    path = make_zip(tmp_path / "b.zip", [("run", b"x")], stat.S_IFREG | 0o6777)
    assert unpack(path, tmp_path / "plain") == []
    assert not (tmp_path / "plain" / "run").stat().st_mode & 0o6111


def test_a_link_and_then_a_file_through_it_stays_inside(tmp_path):
    path = make_tar(tmp_path / "a.tar", [member("d", kind=tarfile.SYMTYPE, link=str(tmp_path)), member("d/x", b"1")])
    assert codes(unpack(path, tmp_path / "out")) == ["E103"]
    assert not (tmp_path / "x").exists()
    assert files_in(tmp_path / "out") == {"d/x": b"1"}


@pytest.mark.parametrize("names", [["a.png", "a.png"], ["a.png", "A.PNG"], ["x/a", "X/b"], ["a", "a/b"], ["a/b", "a"]])
def test_names_that_would_be_one_file_somewhere_are_refused(tmp_path, names):
    path = make_tar(tmp_path / "a.tar", [member(name, b"1") for name in names])
    assert codes(unpack(path, tmp_path / "out")) == ["E104"]
    assert list(files_in(tmp_path / "out")) == names[:1]


def test_a_bomb_ends_at_the_limit_and_leaves_nothing(tmp_path):
    zeros = bytes(1 << 20)
    for number, path in enumerate(
        [
            make_zip(tmp_path / "ratio.zip", [(f"{n}", zeros[: 1 << 17]) for n in range(8)]),
            make_zip(tmp_path / "file.zip", [("a", zeros)]),
            make_zip(tmp_path / "count.zip", [(f"{n}", b"") for n in range(31)]),
            make_tar(tmp_path / "ratio.tgz", [member(f"{n}", zeros[: 1 << 17]) for n in range(8)], "w:gz"),
            make_tar(tmp_path / "count.tar", [member(f"{n}") for n in range(31)]),
        ]
    ):
        out = tmp_path / f"out{number}"
        assert codes(unpack(path, out, SMALL)) == ["E105"]
        assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "tmp"))]
    path = make_tar(tmp_path / "deep.tar", [member("a/" * 5 + "b", b"1")])
    assert codes(unpack(path, tmp_path / "deep", SMALL)) == ["E105"]


def test_a_zip_whose_headers_lie_about_sizes_is_counted_while_it_is_read(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("a", bytes(1 << 22))])
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(signature)
        data[start + at : start + at + 4] = struct.pack("<I", 10)
    path.write_bytes(data)
    assert codes(unpack(path, tmp_path / "out", SMALL)) == ["E101"]
    assert not (tmp_path / "out").exists()


def test_headers_cannot_make_us_take_memory(tmp_path):
    """A pax header of 200 MB, an index of 50 MB and a chain of headers are refused before they are read."""
    pax = tarfile.TarInfo("pax")
    pax.type, pax.size = tarfile.XHDTYPE, 200 << 20
    with gzip.open(tmp_path / "pax.tgz", "wb") as file:
        file.write(pax.tobuf())
        for _ in range(60):
            file.write(bytes(1 << 20))
    chain = tarfile.TarInfo("chain")
    chain.type, chain.size = tarfile.XGLTYPE, 512
    with (tmp_path / "chain.tar").open("wb") as file:
        file.write((chain.tobuf() + bytes(512)) * 5000)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, 50 << 20, 0, 0)
    (tmp_path / "index.zip").write_bytes(bytes(50 << 20) + end)
    tracemalloc.start()
    for name in ("pax.tgz", "chain.tar", "index.zip"):
        assert codes(unpack(tmp_path / name, tmp_path / "out")) == ["E101"], name
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20


def test_a_negative_size_does_not_send_the_reader_round_in_circles(tmp_path):
    info = tarfile.TarInfo("a")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 11 + b"\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    assert codes(unpack(tmp_path / "a.tar", tmp_path / "out")) == ["E101"]


@pytest.mark.parametrize("data", [b"", b"PK", b"\x1f\x8b", b"\x1f\x8b\x08" + bytes(50), b"text", bytes(2000)])
def test_what_is_no_archive_is_a_finding(tmp_path, data):
    (tmp_path / "a.zip").write_bytes(data)
    assert codes(unpack(tmp_path / "a.zip", tmp_path / "out")) == ["E101"]


def test_truncated_encrypted_and_oddly_compressed_archives_are_findings(tmp_path):
    whole = make_zip(tmp_path / "a.zip", [("a", os.urandom(5000))]).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-2000])
    tar = make_tar(tmp_path / "a.tar", [member("a", os.urandom(5000))]).read_bytes()
    (tmp_path / "cut.tar").write_bytes(tar[:3000])
    locked = bytearray(whole)
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(signature) + at] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("a", "text")
    for name in ("cut.zip", "cut.tar", "locked.zip", "lzma.zip"):
        assert codes(unpack(tmp_path / name, tmp_path / "out")) == ["E101"], name
        assert not (tmp_path / "out").exists()


def test_a_path_with_nothing_there_and_a_target_that_is_there_are_the_users_mistakes(tmp_path):
    with pytest.raises(UserError, match="found no such file"):
        unpack(tmp_path / "none.zip", tmp_path / "out")
    with pytest.raises(UserError, match="new folder"):
        unpack(make_zip(tmp_path / "a.zip", []), tmp_path)


def test_a_folder_is_held_against_the_same_rules(tmp_path):
    root = tmp_path / "entry"
    for name in ("good", "Good", "a\x1bb", ".git/HEAD", "__MACOSX/._good"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1")
    (root / "link").symlink_to("/etc/passwd")
    (root / "folder").symlink_to("/etc")
    os.mkfifo(root / "fifo")
    files, findings = survey(root)
    assert files == ["Good"]
    assert sorted((one.code, one.file) for one in findings) == [
        ("E102", "a\\x1bb"), ("E103", "fifo"), ("E103", "folder"), ("E103", "link"), ("E104", "good"),
    ]  # fmt: skip


NAMES = st.one_of(
    st.lists(
        st.sampled_from(["a", "A", "b.png", "..", ".", "", "é", "e\u0301", "\x1b[2J", "x" * 300, "~", "C:"]), max_size=7
    ).map("/".join),
    st.text(st.characters(codec="utf-8"), max_size=12),
)
KINDS = st.sampled_from(
    [
        tarfile.REGTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.DIRTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
    ]
)
LINKS = st.sampled_from(["/etc/passwd", "..", "../..", "a", "/"])
DATA = st.one_of(st.binary(max_size=40), st.integers(0, 1 << 19).map(bytes))
MEMBERS = st.lists(st.tuples(NAMES, KINDS, LINKS, DATA), max_size=40)
FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6)
MODES = {tarfile.SYMTYPE: stat.S_IFLNK, tarfile.CHRTYPE: stat.S_IFCHR, tarfile.FIFOTYPE: stat.S_IFIFO}


def hostile(path, members, form):
    if form == "zip":
        with zipfile.ZipFile(path, "w") as packed:
            for name, kind, link, data in members:
                info = zipfile.ZipInfo("x")
                info.filename = name or "/"
                info.external_attr = MODES.get(kind, stat.S_IFREG) << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                packed.writestr(info, link if kind in MODES else data)
    else:
        with tarfile.open(path, "w:gz" if form == "tgz" else "w:") as packed:
            for name, kind, link, data in members:
                body = data if kind in (tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE) else b""
                packed.addfile(*(lambda info, body: (info, io.BytesIO(body)))(*member(name, body, kind, link)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("form", ["zip", "tar", "tgz"])
@CALM
@given(members=MEMBERS, flips=FLIPS)
def test_no_archive_gets_out_of_its_folder_or_raises(form, members, flips):
    with tempfile.TemporaryDirectory() as name:
        inside = Path(name) / "deep" / "down"
        inside.mkdir(parents=True)
        archive = inside / "archive"
        hostile(archive, members, form)
        data = bytearray(archive.read_bytes())
        for place, value in flips:
            data[int(place * len(data))] = value
        archive.write_bytes(data)
        findings = unpack(archive, inside / "out", SMALL)
        assert {path.name for path in inside.iterdir()} <= {"archive", "out"}
        assert [path.name for path in Path(name).iterdir()] == ["deep"]
        assert all(letter.isprintable() for one in findings for letter in one.file + one.found)
        if not (inside / "out").exists():
            assert {"E101", "E105"} & set(codes(findings))
            return
        files, wrong = survey(inside / "out", SMALL)
        assert wrong == []
        assert sum((inside / "out" / file).stat().st_size for file in files) <= SMALL.total_bytes
        assert not any(path.is_symlink() for path in (inside / "out").rglob("*"))


def packed_as(kind, path, members):
    if kind == "zip":
        return make_zip(path, members)
    return make_tar(path, [member(name, data) for name, data in members], "w" if kind == "tar" else "w:gz")


AT_MOST = ArchiveLimits(files=4, file_bytes=1000, total_bytes=3000, ratio=1, slack_bytes=1 << 20, depth=3)
"""Four files, 1000 bytes each, 3000 in all, three names deep."""
FITS = {
    "files": [(f"{number}", b"1") for number in range(4)],
    "one file": [("a", os.urandom(1000))],
    "sum": [("a", os.urandom(1000)), ("b", os.urandom(1000)), ("c/d", os.urandom(1000))],
    "depth": [("a/b/c", b"1")],
}
BREAKS = {
    "files": [(f"{number}", b"1") for number in range(5)],
    "one file": [("a", os.urandom(1001))],
    "sum": [("a", os.urandom(1000)), ("b", os.urandom(1000)), ("c/d", os.urandom(1000)), ("e", b"1")],
    "depth": [("a/b/c/d", b"1")],
}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("limit", FITS)
def test_exactly_a_limit_is_let_through_and_one_more_is_not(tmp_path, kind, limit):
    fits = packed_as(kind, tmp_path / f"fits.{kind}", FITS[limit])
    assert unpack(fits, tmp_path / "fits", AT_MOST) == []
    assert files_in(tmp_path / "fits") == dict(FITS[limit])
    breaks = packed_as(kind, tmp_path / f"breaks.{kind}", BREAKS[limit])
    assert codes(unpack(breaks, tmp_path / "breaks", AT_MOST)) == ["E105"]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_the_ratio_counts_what_all_members_unpack_to(tmp_path, kind):
    """Each of them is below what the archive may unpack to; together they are above."""
    members = [(f"{number}", bytes(40_000)) for number in range(8)]
    path = packed_as(kind, tmp_path / f"a.{kind}", members)
    limits = ArchiveLimits(ratio=10, slack_bytes=100_000)
    assert 40_000 < 10 * path.stat().st_size + 100_000 < 8 * 40_000
    assert codes(unpack(path, tmp_path / "out", limits)) == ["E105"]
    # Of a tar.gz the headers between the members count, too.
    assert unpack(path, tmp_path / "all", ArchiveLimits(ratio=10, slack_bytes=340_000)) == []


def test_a_folder_is_held_to_the_same_depth_and_count(tmp_path):
    for limit in ("files", "depth"):
        for words, members in (("fits", FITS[limit]), ("breaks", BREAKS[limit])):
            root = tmp_path / limit / words
            for name, data in members:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(data)
        assert survey(tmp_path / limit / "fits", AT_MOST) == (sorted(dict(FITS[limit])), [])
        assert codes(survey(tmp_path / limit / "breaks", AT_MOST)[1]) == ["E105"]
