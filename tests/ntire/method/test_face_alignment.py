"""Faces in whole pictures: where they are put upright, what is put back, and what is left alone to the bit."""

import math

import cv2
import numpy as np
import pytest
import torch

from ntire import UserError
from ntire.entry.journal import read_journal
from ntire.method.face_alignment import (
    AROUND,
    RETINAFACE,
    SIDE,
    TEMPLATE,
    FaceFinder,
    cut_out,
    face_finder,
    put_back,
    restore_faces,
    to_upright,
)
from ntire.method.weights_files import cache_folder
from ntire.picture.image import read_pixels
from tests.made import scene, write_png


def face_at(x, y, side, degrees=0.0):
    """A matrix from an upright face of SIDE to a picture, and the five points that it gives."""
    scale, angle = side / SIDE, math.radians(degrees)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    there = np.c_[turn, np.array([x, y])]
    points = TEMPLATE @ turn.T + [x, y]
    return there, tuple(map(tuple, points))


@pytest.fixture
def picture():
    """Smooth, so that there and back again changes little."""
    row, column = torch.meshgrid(torch.arange(240.0), torch.arange(300.0), indexing="ij")
    return torch.stack([(row / 40).sin(), (column / 30).cos(), ((row + column) / 50).sin()]) * 0.4 + 0.5


def test_five_points_give_the_similarity_that_put_them_there():
    there, points = face_at(70, 40, 150, degrees=20)
    found = np.vstack([to_upright(points), [0, 0, 1]])
    np.testing.assert_allclose(found @ np.vstack([there, [0, 0, 1]]), np.eye(3), atol=1e-3)
    half = to_upright(points, 256)
    np.testing.assert_allclose(half, to_upright(points) / 2, atol=1e-3)
    assert to_upright(((5.0, 5.0),) * 5) is None


def test_a_face_is_cut_out_as_opencv_does_it(picture):
    _, points = face_at(200, 30, 170, degrees=-12)
    matrix = to_upright(points)
    theirs = cv2.warpAffine(picture.permute(1, 2, 0).numpy(), matrix, (SIDE, SIDE), borderValue=AROUND)
    ours = cut_out(picture, matrix)
    assert float((ours - torch.tensor(AROUND).view(3, 1, 1)).abs().amax(0).eq(0).float().mean()) > 0.1, (
        "the face leaves it"
    )
    np.testing.assert_allclose(ours.permute(1, 2, 0).numpy(), theirs, atol=0.02)  # OpenCV rounds places to 1/32


def test_restoring_nothing_changes_almost_nothing_and_outside_of_faces_nothing_at_all(picture):
    there, points = face_at(90, 50, 140, degrees=15)
    restored, faces = restore_faces(picture, lambda image: [points], lambda face: face)
    assert faces == 1
    assert float((restored - picture).abs().max()) < 2e-3
    assert not torch.equal(restored, picture)
    black, _ = restore_faces(picture, lambda image: [points], torch.zeros_like)
    row, column = np.mgrid[0:240, 0:300]
    at = np.linalg.inv(there[:, :2]) @ (np.stack([column, row]).reshape(2, -1) - there[:, 2:])
    outside = torch.from_numpy(((at < -1) | (at > SIDE)).any(0).reshape(240, 300))
    assert torch.equal(black[:, outside], picture[:, outside])
    deep = torch.from_numpy(((at > SIDE * 0.12) & (at < SIDE * 0.88)).all(0).reshape(240, 300))
    assert deep.sum() > 5000
    assert float(black[:, deep].abs().max()) < 1e-6


def test_every_face_is_restored_and_points_without_a_place_are_left_out(picture):
    first, second = face_at(10, 20, 90)[1], face_at(180, 100, 110)[1]
    restored, faces = restore_faces(picture, lambda image: [first, ((1.0, 1.0),) * 5, second], torch.zeros_like)
    assert faces == 2
    for x, y in (first[2], second[2]):
        assert float(restored[:, int(y), int(x)].max()) == 0
    untouched, faces = restore_faces(picture, lambda image: [], torch.zeros_like)
    assert faces == 0
    assert untouched is picture


def test_a_mask_says_what_is_put_back(picture):
    matrix = to_upright(face_at(60, 40, 150)[1])
    mask = torch.zeros(SIDE, SIDE)
    assert torch.equal(put_back(picture, torch.zeros(3, SIDE, SIDE), matrix, mask), picture)
    mask[200:300, 200:300] = 1
    changed = (put_back(picture, torch.zeros(3, SIDE, SIDE), matrix, mask) != picture).any(0)
    assert 800 < int(changed.sum()) < 1000, "100 of 512 pixels a side, in a face of 150"


def test_the_detector_gives_what_facexlibs_own_way_gives():
    pytest.importorskip("facexlib", reason="needs the extra ntire[faces]")
    torch.manual_seed(0)
    finder = FaceFinder(light=True).eval().requires_grad_(False)
    for parameter in finder.parameters():
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter)  # as it comes, all places look the same to it
    for head in (finder.net.ClassHead, finder.net.BboxHead, finder.net.LandmarkHead):
        for parameter in head.parameters():
            parameter.mul_(0.01)
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    with torch.no_grad():
        theirs = finder.net.detect_faces(pixels[..., ::-1].copy(), 0.4)
    ours = finder.boxes(torch.from_numpy(pixels).permute(2, 0, 1) / 255, 0.4)
    assert len(theirs) > 0
    np.testing.assert_allclose(ours, theirs, atol=1e-2)
    halves = finder.to(torch.bfloat16)
    assert halves.boxes(torch.from_numpy(pixels).permute(2, 0, 1) / 255, 0.0).shape[1] == 15
    (counted,) = halves(torch.empty(3, 1024, 512, device="meta"))
    np.testing.assert_allclose(counted, TEMPLATE * [1, 2])


def test_whole_pictures_run_from_the_command_line_and_the_journal_says_how_many_faces(ntire, tmp_path, monkeypatch):
    pixels = scene(120, 160)
    write_png(tmp_path / "in" / "group.png", pixels)
    points = [face_at(20, 20, 60)[1], face_at(90, 40, 50)[1]]
    monkeypatch.setattr("ntire.method.face_alignment.face_finder", lambda device: lambda image: points)
    ran = ntire("run", "--team", "Copy", "--track", "face", "--whole", tmp_path / "in", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    (line,) = read_journal(tmp_path / "out" / "journal.jsonl")
    assert line["notes"] == ["2 face(s) restored, the rest left as it is"]
    restored = read_pixels(tmp_path / "out" / "images" / "group.png")
    assert np.array_equal(restored[:15], pixels[:15])
    assert int(np.abs(restored.astype(int) - pixels).max()) < 30


def test_whole_pictures_need_the_detectors_weights_and_a_method_for_faces(ntire, pictures):
    refused = ntire("run", "--team", "Copy", "--track", "srgb", "--whole", pictures)
    assert refused.code == 2
    assert "--whole finds faces" in refused.err
    pytest.importorskip("facexlib", reason="needs the extra ntire[faces]")
    missing = ntire("run", "--team", "Copy", "--track", "face", "--whole", pictures)
    assert missing.code == 3
    assert RETINAFACE.urls[0] in missing.err.replace("\n", "")
    with pytest.raises(UserError, match=RETINAFACE.file):
        face_finder("cpu")
    assert not cache_folder().exists(), "nothing was downloaded"
