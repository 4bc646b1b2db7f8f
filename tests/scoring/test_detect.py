import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from ntire import UserError
from ntire.method import face_alignment as faces
from ntire.method.weights_files import cache_folder
from ntire.scoring.detect import find_landmarks, largest, retinaface
from tests.made import scene, write_png


def test_the_largest_face_is_taken_in_the_order_of_the_table():
    rows = np.zeros((2, 15))
    rows[0] = [0, 0, 10, 10, 0.99, *range(10)]
    rows[1] = [0, 0, 50, 60, 0.9, *range(100, 110)]
    assert largest(rows) == ((100, 101), (102, 103), (104, 105), (106, 107), (108, 109))
    assert largest(rows[:0]) is None


def test_every_picture_without_a_face_is_told(tmp_path):
    points = ((1.0, 2.0),) * 5
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
    assert found is None or np.array(found).shape == (5, 2)
    torch.save({f"module.{name}": value for name, value in state.items() if "fpn" not in name}, path)
    with pytest.raises(UserError, match="missing fpn"):
        retinaface("cpu")
