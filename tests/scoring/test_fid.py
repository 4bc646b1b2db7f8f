import warnings
from unittest import mock

import numpy as np
import pytest
import scipy.linalg
import torch

from ntire import UserError
from ntire.scoring.fid import frechet_distance, frechet_distance_of_sets, read_statistics
from ntire.scoring.instruments import View
from tests.made import scene


def gaussian(rng, dimensions):
    root = rng.normal(size=(dimensions, dimensions)) / np.sqrt(dimensions)
    return rng.normal(size=dimensions), root @ root.T + 0.1 * np.eye(dimensions)


def direct(features, mean, covariance):
    """The definition, with a matrix square root in float64."""
    own = np.cov(features, rowvar=False)
    root = scipy.linalg.sqrtm(own @ covariance)
    shift = ((features.mean(0) - mean) ** 2).sum()
    return shift + np.trace(own) + np.trace(covariance) - 2 * np.trace(root).real


@pytest.mark.parametrize("count", [40, 100, 400])
def test_it_is_the_definition_for_few_and_for_many_images(count):
    rng = np.random.default_rng(count)
    mean, covariance = gaussian(rng, 100)
    features = rng.normal(size=(count, 100)) * np.linspace(0.2, 1.5, 100) + 0.3
    found = frechet_distance(features, mean, covariance)
    assert found == pytest.approx(direct(features, mean, covariance), rel=1e-5)
    assert frechet_distance(rng.permutation(features), mean, covariance) == pytest.approx(found, rel=1e-8)


def test_closed_forms():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 20))
    mean, covariance = features.mean(0), np.cov(features, rowvar=False)
    assert frechet_distance(features, mean, covariance) == pytest.approx(0, abs=1e-9)
    shift = rng.normal(size=20)
    assert frechet_distance(features, mean + shift, covariance) == pytest.approx(shift @ shift)
    # N(m, C) against N(m, s^2 C): (1 - s)^2 Tr C.
    assert frechet_distance(features, mean, 9 * covariance) == pytest.approx(4 * np.trace(covariance))


@pytest.mark.parametrize(("ours", "theirs"), [(40, 60), (100, 30), (250, 300), (250, 40)])
def test_between_two_sets_it_is_the_definition_too(ours, theirs):
    rng = np.random.default_rng(ours)
    restored, truth = rng.normal(size=(ours, 80)) * 1.3 + 0.1, rng.normal(size=(theirs, 80)) * np.linspace(0.2, 1, 80)
    found = frechet_distance_of_sets(restored, truth)
    assert found == pytest.approx(frechet_distance(restored, truth.mean(0), np.cov(truth, rowvar=False)), rel=1e-6)
    assert frechet_distance_of_sets(truth, restored) == pytest.approx(found, rel=1e-9)
    assert frechet_distance_of_sets(restored, restored) == pytest.approx(0, abs=1e-9)


def test_one_image_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 images"):
        frechet_distance(np.zeros((1, 4)), np.zeros(4), np.eye(4))
    with pytest.raises(ValueError, match="at least 2 images"):
        frechet_distance_of_sets(np.zeros((3, 4)), np.zeros((1, 4)))


def test_features_are_those_of_the_usual_port_of_fid_inception(random_metric):
    """pytorch-fid's network in pyiqa, fed as the challenge's program feeds it, with the same random weights."""
    pytest.importorskip("pyiqa", reason="compares with pyiqa's port")
    from pyiqa.archs.inception import InceptionV3

    metric = random_metric("fid")
    ours = metric.load("cpu", metric.paths())
    theirs = InceptionV3.__new__(InceptionV3)
    torch.nn.Module.__init__(theirs)
    loading = mock.patch("pyiqa.archs.inception.load_pretrained_network", _load_strictly(metric))
    with loading, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.__init__(output_blocks=(3,), resize_input=True, normalize_input=False)
    theirs.eval()
    picture = scene(200, 260)
    image = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = theirs((image - 0.5) / 0.5, resize_input=True)[0].flatten().numpy()
    found = ours.observe([View(picture)])[0]
    assert found.shape == (2048,)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert found.std() > 0


def _load_strictly(metric):
    def load(network, url, *_, **__):
        file = metric.paths()["pt_inception-2015-12-05-6726825d.pth"]
        network.load_state_dict(torch.load(file, weights_only=True), strict=True)

    return load


def test_statistics_are_read_without_running_code(random_metric, tmp_path):
    metric = random_metric("fid")
    mean, covariance = read_statistics(metric.paths()["inception_FFHQ_512.pth"])
    assert (mean.shape, covariance.shape) == ((2048,), (2048, 2048))
    for content in ({"mean": np.zeros(3), "cov": np.zeros((3, 3))}, {"mu": np.zeros(3)}, {"mean": print, "cov": 1}):
        torch.save(content, tmp_path / "bad.pth")
        with pytest.raises(UserError, match="bad.pth"):
            read_statistics(tmp_path / "bad.pth")
