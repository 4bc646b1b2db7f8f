import csv
import io
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform

from ntire import UserError
from ntire.scoring.identity import (
    TEMPLATE,
    AdaFaceIR50,
    Face,
    NoCrop,
    crop_face,
    outside,
    read_landmarks,
    similarity_transform,
    write_landmarks,
)
from ntire.scoring.instruments import View
from ntire.scoring.pixels import MetricError
from tests.made import scene

HEADER = "filename,dataset,x1,y1,x2,y2," + ",".join(
    f"{point}_{axis}" for point in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right") for axis in "xy"
)


def as_points(array):
    return tuple((float(x), float(y)) for x, y in array)


def placed(scale, angle, x, y):
    """The template turned, scaled and moved into a picture."""
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return TEMPLATE @ (scale * turn).T + [x, y]


@given(scale=st.floats(0.5, 5), angle=st.floats(-1.5, 1.5), x=st.floats(-100, 300), y=st.floats(-100, 300))
def test_a_known_similarity_is_recovered(scale, angle, x, y):
    matrix = similarity_transform(as_points(placed(scale, angle, x, y)))
    mapped = np.c_[placed(scale, angle, x, y), np.ones(5)] @ matrix.T
    assert np.abs(mapped - TEMPLATE).max() < 1e-6
    assert matrix.shape == (2, 3)


def test_it_is_the_fit_from_template_to_image_and_not_umeyama():
    rng = np.random.default_rng(0)
    points = placed(3.0, 0.1, 60, 80) + rng.normal(0, 6, (5, 2))
    matrix = similarity_transform(as_points(points))
    # cp2tform minimises the error in the image: check against a brute-force normal equation.
    x, y = TEMPLATE.T
    system = np.r_[np.c_[x, y, np.ones(5), np.zeros(5)], np.c_[y, -x, np.zeros(5), np.ones(5)]]
    a, b, c, d = np.linalg.solve(system.T @ system, system.T @ points.T.ravel())
    expected = np.linalg.inv([[a, b, c], [-b, a, d], [0, 0, 1]])[:2]
    assert np.allclose(matrix, expected, atol=1e-9)
    umeyama = SimilarityTransform.from_estimate(points, TEMPLATE).params[:2]
    assert np.abs(matrix - umeyama).max() > 1e-3


def test_a_mirrored_face_is_mirrored_back():
    mirrored = placed(2.0, 0.2, 100, 50) * [-1, 1] + [400, 0]
    matrix = similarity_transform(as_points(mirrored))
    assert np.linalg.det(matrix[:, :2]) < 0
    assert np.abs(np.c_[mirrored, np.ones(5)] @ matrix.T - TEMPLATE).max() < 1e-6


def test_points_that_are_all_the_same_have_no_fit():
    with pytest.raises(MetricError, match="five different points"):
        similarity_transform(((5.0, 5.0),) * 5)


def test_the_crop_shows_the_landmarks_at_the_template():
    picture = np.zeros((300, 300, 3), np.uint8)
    points = placed(2.0, 0.0, 20, 30)
    for x, y in np.rint(points).astype(int):
        picture[y - 3 : y + 4, x - 3 : x + 4] = 255
    crop = crop_face(picture, as_points(points))
    assert crop.shape == (112, 112, 3)
    for x, y in np.rint(TEMPLATE).astype(int):
        assert crop[y, x].min() > 200
    edge = crop_face(np.full((200, 230, 3), 255, np.uint8), as_points(placed(2.0, 0.0, 20, 30)))
    assert edge[-1, -1].max() == 0, "black beyond the border"


@pytest.mark.parametrize("shift", [5000.0, -400.0, 260.0])
def test_a_face_that_lies_mostly_outside_of_its_picture_has_no_crop_to_compare(shift):
    with pytest.raises(NoCrop, match="of the aligned face lies in the picture of 300 x 300, at least 50% must"):
        crop_face(scene(300, 300), as_points(placed(2.0, 0.0, shift, 30)))


def test_points_that_are_not_numbers_have_no_crop():
    with pytest.raises(MetricError, match="not numbers"):
        crop_face(scene(300, 300), ((math.nan, math.nan),) * 5)


def test_faces_of_insightface_are_aligned_as_insightface_aligns_them():
    align = pytest.importorskip("insightface.utils.face_align", reason="needs the extra ntire[insightface]")
    rng = np.random.default_rng(1)
    for angle in (0.0, 0.4, -0.9, 3.0):
        points = placed(3.0, angle, 200, 220) + rng.normal(0, 6, (5, 2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-image is renaming what insightface calls
            theirs = align.estimate_norm(points, 112)
        ours = similarity_transform(as_points(points), "umeyama")
        corners = np.array([[x, y, 1.0] for x in (0, 512) for y in (0, 512)])
        assert np.abs(corners @ (ours - theirs).T).max() < 1e-3


def test_the_network_has_the_names_and_shapes_of_the_released_checkpoint(data):
    table = data.parent / "golden" / "state_dicts" / "adaface_ir50.tsv"
    if not table.is_file():
        pytest.skip(f"the list of the released checkpoint's tensors is not in {table}")
    released = {}
    for line in table.read_text().splitlines():
        if not line.startswith("#"):
            name, shape, _ = line.split("\t")
            released[name] = () if shape == "scalar" else tuple(map(int, shape.split("x")))
    own = {name: tuple(value.shape) for name, value in AdaFaceIR50().state_dict().items()}
    assert own == released


def test_the_network_counts_as_published_and_gives_unit_vectors():
    network = AdaFaceIR50().eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 43_585_600
    with torch.no_grad():
        embeddings = network(torch.rand(2, 3, 112, 112) * 2 - 1)
    assert embeddings.shape == (2, 512)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(2))


def test_the_gate_sees_blue_green_red_in_minus_one_to_one(random_metric):
    metric = random_metric("adaface")
    instrument = metric.load("cpu", metric.paths())
    picture, points = scene(256, 256), as_points(placed(1.6, 0.0, 30, 40))
    crop = torch.from_numpy(crop_face(picture, points).astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = instrument.net((crop / 255 - 0.5)[:, [2, 1, 0]] / 0.5)[0].numpy()
    found = instrument.observe([View(picture, None, Face(points))])[0]
    assert np.abs(found - expected).max() < 1e-6
    assert np.array_equal(instrument.observe([View(picture, None, points)])[0], found), "points alone"
    assert metric.of_pair(found, found) == pytest.approx(1)
    with pytest.raises(MetricError, match="no landmarks"):
        instrument.observe([View(picture)])


@pytest.mark.data
@pytest.mark.parametrize("table", ["landmarks_test_2025.csv", "landmarks_test_2026.csv", "landmarks_val_2025.csv"])
def test_the_organisers_tables_are_read_whole(data, table):
    found = read_landmarks(data / "face" / table)
    assert len(found) == 450
    counts = {subset: sum(own == subset for own, _ in found.values()) for subset in {own for own, _ in found.values()}}
    assert counts == {"CelebA": 100, "LFW-Test": 100, "CelebChild-Test": 50, "WebPhoto-Test": 100, "Wider-Test": 100}
    for _, (points, fit) in found.values():
        assert fit == "cp2tform"
        assert not outside(Face(points), 512, 512)
        assert np.abs(np.c_[np.array(points), np.ones(5)] @ similarity_transform(points).T - TEMPLATE).max() < 25


def test_a_table_goes_through_a_file(tmp_path):
    table = {
        "0412": ("Wider-Test", Face(as_points(placed(3, 0.1, 50, 60)))),
        "a.b,c": ("CelebA", Face(as_points(placed(2, 0, 1, 2)), "umeyama")),
        'he said "no"': ("CelebA", Face(as_points(placed(2, 0, 1, 2)))),
        "=1+1": ("-", Face(as_points(placed(2, 0, 1, 2)))),
        "Zo\u00eb": ("CelebA", Face(as_points(placed(2, 0, 1, 2)))),
    }
    write_landmarks(tmp_path / "l.csv", table)
    assert read_landmarks(tmp_path / "l.csv") == table


ROWS = [["a.b.png", "CelebA", *range(14)], ["Zoe\u0308.PNG", 'LFW, "Test"', *(number + 0.5 for number in range(14))]]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("separator", "decimal"), [(",", "."), (";", ","), ("\t", ",")])
def test_tables_that_excel_wrote_are_read(tmp_path, separator, decimal, encoding, ending):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=ending)
    writer.writerow(HEADER.split(","))
    for row in ROWS:
        writer.writerow([str(cell).replace(".", decimal) if isinstance(cell, float) else cell for cell in row])
    writer.writerow([""] * 16)
    (tmp_path / "l.csv").write_bytes(text.getvalue().encode(encoding))
    found = read_landmarks(tmp_path / "l.csv")
    assert set(found) == {"a.b", "Zo\u00eb"}
    assert found["Zo\u00eb"] == ('LFW, "Test"', Face(tuple((x + 0.5, x + 1.5) for x in range(4, 14, 2))))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found an empty file"),
        ("filename,dataset\na,b\n", "found none of left_eye_x"),
        (f"{HEADER}\na.png,CelebA,0,0,1,1" + ",1" * 9 + ",x\n", "line 2: a: a coordinate is not a number: 'x'"),
        (f"{HEADER}\n" + ("a,CelebA,0,0,1,1" + ",1" * 10 + "\n") * 2, "line 3: a stands there twice"),
        (
            f"{HEADER}\na,CelebA,0,0,1,1" + ",1" * 9 + ",nan\nb,CelebA,0,0,1,1" + ",inf" * 10 + "\n",
            r"(?s)line 2: a: not finite: mouth_right_y nan.*line 3: b: not finite: left_eye_x inf",
        ),
        (f"{HEADER}\n" + '"a', "cannot be read as CSV"),
    ],
)
def test_a_table_with_mistakes_tells_them(tmp_path, text, message):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_landmarks(tmp_path / "l.csv")


def test_points_outside_of_a_picture_are_named():
    points = ((5.0, 5.0), (70.0, 5.0), (30.0, -2.0), (6.0, 39.4), (47.4, 39.0))
    found = outside(Face(points), 40, 48)
    assert found == "right_eye at (70, 5), nose at (30, -2) outside of the picture of 40 x 48"
