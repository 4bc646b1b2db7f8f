import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from ntire import UserError
from ntire.method import face_alignment as faces
from ntire.method.weights_files import cache_folder
from ntire.scoring import detect
from ntire.scoring.detect import detector, find_landmarks, largest, retinaface
from ntire.scoring.identity import Face
from tests.made import scene, write_png


def test_the_largest_face_is_taken_in_the_order_of_the_table():
    rows = np.zeros((2, 15))
    rows[0] = [0, 0, 10, 10, 0.99, *range(10)]
    rows[1] = [0, 0, 50, 60, 0.9, *range(100, 110)]
    assert largest(rows) == ((100, 101), (102, 103), (104, 105), (106, 107), (108, 109))
    assert largest(rows[:0]) is None


def test_every_picture_without_a_face_is_told(tmp_path):
    points = Face(((1.0, 2.0),) * 5)
    pictures = {name: ("CelebA", tmp_path / f"{name}.png") for name in "abc"}
    assert find_landmarks(pictures, lambda path: points) == dict.fromkeys("abc", ("CelebA", points))
    with pytest.raises(UserError, match=r"no face was found in 2 input\(s\): .*a.png, .*c.png"):
        find_landmarks(pictures, lambda path: points if path.stem == "b" else None)


def test_the_detector_needs_its_weights_and_fills_them_strictly(tmp_path, monkeypatch):
    facexlib = pytest.importorskip("facexlib.detection.retinaface", reason="needs the extra ntire[iqa]")
    with pytest.raises(UserError, match="detection_Resnet50_Final.pth") as caught:
        retinaface("cpu")
    assert caught.value.exit_code == 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = facexlib.RetinaFace(network_name="resnet50", device=torch.device("cpu")).state_dict()
    monkeypatch.setattr(faces, "RETINAFACE", replace(faces.RETINAFACE, sha256=None))
    path = cache_folder() / faces.RETINAFACE.file
    path.parent.mkdir(parents=True)
    torch.save({f"module.{name}": value for name, value in state.items()}, path)
    picture = write_png(tmp_path / "a.png", scene(96, 128))
    found = retinaface("cpu")(picture)
    assert found is None or np.array(found.points).shape == (5, 2)
    torch.save({f"module.{name}": value for name, value in state.items() if "fpn" not in name}, path)
    with pytest.raises(UserError, match="missing fpn"):
        retinaface("cpu")


POINTS = ((200.0, 100.0), (260.0, 102.0), (230.0, 140.0), (206.0, 170.0), (255.0, 171.0))


def constant_network(path, scale):
    """An SCRFD of constants: one face with POINTS, at the scale that pictures are fitted into its square by."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    outputs, nodes = [], []
    for kind, width in (("score", 1), ("box", 4), ("points", 10)):
        for stride in (8, 16, 32):
            cells = (640 // stride) ** 2 * 2
            values = np.zeros((cells, width), np.float32)
            if stride == 8:
                x, y = 20, 15  # of the cell, whose centre is at 8 times that
                cell = (y * 80 + x) * 2
                offsets = (np.array(POINTS) * scale - [8 * x, 8 * y]) / 8
                values[cell] = {"score": [0.9], "box": [5, 5, 20, 20], "points": offsets.ravel()}[kind]
            name = f"{kind}{stride}"
            tensor = numpy_helper.from_array(values, name)
            nodes.append(helper.make_node("Constant", [], [name], value=tensor))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(values.shape)))
    given = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, 640, 640])
    graph = helper.make_graph(nodes, "scrfd", [given], outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def test_scrfd_finds_points_in_pixels_of_the_picture_and_aligns_as_insightface(tmp_path, monkeypatch):
    pytest.importorskip("insightface", reason="needs the extra ntire[insightface]")
    with pytest.raises(UserError, match=r"(?s)det_10g.onnx.*--landmarks") as caught:
        detector("scrfd", "cpu")
    assert caught.value.exit_code == 3
    monkeypatch.setattr(detect, "SCRFD", replace(detect.SCRFD, sha256=None))
    path = cache_folder() / detect.SCRFD.file
    path.parent.mkdir(parents=True)
    constant_network(path, scale=2.0)
    found = detector("scrfd", "cpu")(write_png(tmp_path / "a.png", scene(320, 320)))
    assert found.fit == "umeyama"
    assert np.allclose(found.points, POINTS, atol=1e-3)


def test_without_insightface_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface.model_zoo.scrfd", None)
    with pytest.raises(UserError, match=r"pip install 'ntire\[insightface\]'"):
        detector("scrfd", "cpu")
