"""pyiqa's own call and our instruments on the same random weights: the same numbers, one by one and in batches."""

import contextlib
import io
import math
import warnings
from unittest import mock

import numpy as np
import pytest
import torch

from ntire import UserError
from ntire.method.weights_files import cache_folder
from ntire.scoring import networks
from ntire.scoring.instruments import View, as_batch
from ntire.scoring.networks import check_tokens
from ntire.scoring.pixels import MetricError
from tests.made import scene

pyiqa = pytest.importorskip("pyiqa", reason="the learned metrics need the extra ntire[iqa]")

OPTIONS = {"maniqa": {"test_sample": 1}}
NO_REFERENCE = ("niqe", "clipiqa", "maniqa", "musiq")
ALL = (*NO_REFERENCE, "lpips", "dists")


def pictures(count, height=224, width=256):
    return [scene(height, width, seed=seed) for seed in range(count)]


def by_pyiqa(name, images, references=None):
    """What pyiqa gives for each picture by itself."""
    options = dict(OPTIONS.get(name, {}))
    if name == "clipiqa":
        options["backbone"] = str(cache_folder("clip") / "RN50.pt")
    create = __import__("timm").create_model
    quiet = contextlib.redirect_stdout(io.StringIO())
    with (
        quiet,
        warnings.catch_warnings(),
        mock.patch(
            "timm.create_model", lambda model, pretrained=False, **rest: create(model, pretrained=False, **rest)
        ),
    ):
        warnings.simplefilter("ignore")
        metric = pyiqa.create_metric(name, device=torch.device("cpu"), **options)
        found = []
        for number, image in enumerate(images):
            pair = [image] if references is None else [image, references[number]]
            found.append(float(metric(*[as_batch([one], torch.device("cpu")) for one in pair])))
    return found


LOADED = {}
"""Instruments that a test has loaded: building one takes longer than most tests."""


@pytest.fixture
def instrument(random_metric):
    def load(name):
        metric = random_metric(name)
        if name not in LOADED:
            LOADED[name] = networks.Maniqa("cpu", crops=1) if name == "maniqa" else metric.load("cpu", metric.paths())
        return LOADED[name]

    return load


@pytest.mark.parametrize("name", ALL)
def test_an_instrument_gives_what_pyiqa_gives_and_repeats_itself(instrument, name):
    images = pictures(2)
    references = pictures(3)[1:] if name in ("lpips", "dists") else None
    views = [View(image, references[number] if references else None) for number, image in enumerate(images)]
    loaded = instrument(name)
    ours = [float(loaded.observe([view])[0][0]) for view in views]
    assert ours == pytest.approx(by_pyiqa(name, images, references), abs=1e-6)
    assert len(set(ours)) == 2, "two pictures, two values"
    assert all(math.isfinite(value) for value in ours)
    assert [float(loaded.observe([view])[0][0]) for view in views] == ours


@pytest.mark.parametrize("name", ["clipiqa", "fid", "adaface"])
def test_a_batch_gives_what_its_images_give_one_by_one(instrument, name):
    loaded = instrument(name)
    assert loaded.batch > 1
    points = ((80.0, 90.0), (140.0, 92.0), (110.0, 120.0), (85.0, 150.0), (138.0, 152.0))
    views = [View(image, None, points) for image in pictures(loaded.batch)]
    alone = [loaded.observe([view])[0] for view in views]
    together = loaded.observe(views)
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one - other).max() <= 1e-6 * max(1.0, np.abs(one).max())


@pytest.mark.parametrize("name", NO_REFERENCE)
def test_red_and_blue_are_not_mixed_up(instrument, name):
    loaded, image = instrument(name), pictures(1)[0]
    values = [float(loaded.observe([View(one)])[0][0]) for one in (image, image[..., ::-1].copy())]
    assert abs(values[0] - values[1]) > 1e-7


def test_lpips_and_dists_of_equal_pictures_are_nothing(instrument):
    image = pictures(1)[0]
    for name in ("lpips", "dists"):
        assert float(instrument(name).observe([View(image, image)])[0][0]) == pytest.approx(0, abs=1e-5)


def test_the_prompts_of_clip_iqa_are_encoded_once(instrument):
    loaded = instrument("clipiqa")
    with mock.patch.object(loaded.clip, "encode_text", side_effect=AssertionError("encoded again")):
        loaded.observe([View(pictures(1)[0])])


def test_maniqa_does_not_run_the_blocks_that_nothing_reads(instrument):
    assert len(instrument("maniqa").net.vit.blocks) == 10


def test_maniqa_is_right_after_an_exception(instrument):
    loaded, view = instrument("maniqa"), View(pictures(1)[0])
    before = loaded.observe([view])[0]
    broken = mock.patch.object(loaded.net, "extract_feature", side_effect=RuntimeError("out of memory"))
    with broken, pytest.raises(RuntimeError):
        loaded.observe([view])
    assert np.array_equal(loaded.observe([view])[0], before)


def test_niqe_of_a_picture_without_texture_is_no_number(instrument):
    with pytest.raises(MetricError, match="NIQE finds no texture"):
        instrument("niqe").observe([View(np.full((192, 192, 3), 128, np.uint8))])


@pytest.mark.parametrize(("name", "least"), [("niqe", 96), ("clipiqa", 31), ("lpips", 31), ("dists", 1), ("musiq", 1)])
def test_a_picture_too_small_for_a_network_is_no_number_and_no_crash(instrument, name, least):
    picture = np.random.default_rng(0).integers(0, 256, (300, least, 3), dtype=np.uint8)
    reference = picture[::-1].copy() if name in ("lpips", "dists") else None
    (value,) = instrument(name).observe([View(picture, reference)])[0]
    assert math.isfinite(value)
    if least > 1:
        smaller = None if reference is None else reference[:, 1:]
        with pytest.raises(MetricError, match=f"at least {least} x {least} pixels, the image has 300 x {least - 1}"):
            instrument(name).observe([View(picture[:, 1:], smaller)])


@pytest.mark.parametrize("size", [(97, 400), (500, 310), (768, 1152)])
def test_niqe_is_pyiqa_s_on_even_areas_and_across_bands(instrument, size):
    image = scene(*size, seed=3)
    image[: size[0] // 2, : size[1] // 3] = 255
    image[size[0] // 2 :, -96:] = scene(1, 1)
    ours = float(instrument("niqe").observe([View(image)])[0][0])
    assert ours == pytest.approx(by_pyiqa("niqe", [image])[0], abs=1e-6)


def test_niqe_looks_only_at_whole_blocks_from_the_top_left(instrument):
    loaded = instrument("niqe")
    image = scene(200, 300)
    other = image.copy()
    other[192:], other[:, 288:] = 0, 255
    assert loaded.observe([View(image)])[0] == loaded.observe([View(other)])[0]


@pytest.mark.parametrize("name", ["lpips", "dists"])
def test_heads_from_another_file_are_refused(random_metric, name):
    metric = random_metric(name)
    heads = metric.paths()[metric.weights[0].file]
    whole = heads.read_bytes()
    try:
        torch.save({"some.other.weight": torch.zeros(3)}, heads)
        with pytest.raises(UserError, match="expected the tensors"):
            metric.load("cpu", metric.paths())
    finally:
        heads.write_bytes(whole)


def test_nothing_is_downloaded_while_a_metric_is_built(random_metric):
    metric = random_metric("musiq")
    path = metric.paths()[metric.weights[0].file]
    hidden = path.rename(path.with_suffix(".hidden"))
    try:
        with pytest.raises(UserError, match="is not here. Get it with `ntire weights fetch`"):
            metric.load("cpu", metric.paths())
    finally:
        hidden.rename(path)


class Tokenizer:
    """Gives each word a number; with or without the token of the beginning."""

    bos_token_id = 1

    def __init__(self, begins=True):
        self.begins = begins

    def __call__(self, text):
        class Encoded(dict):
            __getattr__ = dict.__getitem__

        def encode(one):
            ids = [3 + sum(map(ord, word)) % 900 for word in one.split()]
            return [1, *ids] if self.begins else ids

        return Encoded(input_ids=encode(text) if isinstance(text, str) else [encode(one) for one in text])


def test_a_tokenizer_that_leaves_out_the_first_token_is_found():
    check_tokens(Tokenizer())
    with pytest.raises(UserError, match="expected a prompt that begins with token 1"):
        check_tokens(Tokenizer(begins=False))


@pytest.fixture
def small_q_align(monkeypatch):
    """pyiqa's Q-Align with one vision, one abstractor and two language layers, random, and a tokenizer of our own."""
    import copy

    from pyiqa.archs.q_align import configuration_mplug_owl2 as configuration
    from pyiqa.archs.q_align import modeling_mplug_owl2 as modeling
    from transformers import CLIPImageProcessor

    visual = copy.deepcopy(configuration.DEFAULT_VISUAL_CONFIG)
    small = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "initializer_range": 0.2}
    visual["visual_model"] |= {**small, "intermediate_size": 128}
    visual["visual_abstractor"] |= {**small, "intermediate_size": 96, "encoder_hidden_size": 64}
    config = configuration.MPLUGOwl2Config(
        visual_config=visual, vocab_size=1000, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, initializer_range=0.2,
    )  # fmt: skip
    config._attn_implementation = "eager"
    processor = CLIPImageProcessor(size={"shortest_edge": 448}, crop_size={"height": 448, "width": 448})

    def built(cls, *_, **__):
        torch.manual_seed(0)
        return cls(config).half().eval()

    monkeypatch.setattr(modeling.LlamaTokenizer, "from_pretrained", lambda *_, **__: Tokenizer())
    monkeypatch.setattr(CLIPImageProcessor, "from_pretrained", lambda *_, **__: processor)
    monkeypatch.setattr(modeling.MPLUGOwl2LlamaForCausalLM, "from_pretrained", classmethod(built))


@pytest.mark.filterwarnings("ignore")
def test_q_align_gives_what_pyiqa_gives(small_q_align):
    images = [scene(448, 448), np.full((448, 300, 3), 240, np.uint8)]
    loaded = networks.QAlign("cpu")
    ours = [float(loaded.observe([View(image)])[0][0]) for image in images]
    assert ours == by_pyiqa("qalign", images)
    assert len(set(ours)) == 2
    assert all(1 <= value <= 5 for value in ours)


@pytest.fixture
def real_niqe(data, tmp_path):
    """NIQE with the authors' model, and that model's mean and covariance."""
    import scipy.io

    real = np.load(data / "weights" / "niqe_pris_params.npz")
    path = tmp_path / "niqe_modelparameters.mat"
    scipy.io.savemat(path, {"mu_prisparam": real["mu_pris_param"], "cov_prisparam": real["cov_pris_param"]})
    model = [torch.from_numpy(real[name]).double() for name in ("mu_pris_param", "cov_pris_param")]
    return networks.Niqe("cpu", "niqe", pretrained_model_path=str(path)), model


def ties(pixels):
    """Where the luma 0.299 R + 0.587 G + 0.114 B lies exactly between two integers, which float32 rounds either way: NIQE
    then depends on the processor, by up to 0.02 for the 162 such pixels of I03."""
    return pixels.astype(int) @ [299, 587, 114] % 1000 == 500


@pytest.mark.data
def test_niqe_with_the_real_model_gives_the_published_values(data, real_niqe):
    import csv

    from pyiqa.archs.niqe_arch import niqe

    from ntire.picture.image import read_pixels

    def value(pixels):
        return float(real_niqe[0].observe([View(pixels)])[0][0])

    with (data / "calibration" / "expected.csv").open() as file:
        rows = {row["image"]: float(row["niqe"]) for row in csv.DictReader(file)}
    pictures = {name: read_pixels(data / "calibration" / "dist" / name).copy() for name in rows}
    robust = [name for name, pixels in pictures.items() if not ties(pixels).any()]
    assert robust == ["I04.bmp", "I19.bmp"]
    assert [value(pictures[name]) for name in robust] == pytest.approx([rows[name] for name in robust], abs=6e-5)
    for name, pixels in pictures.items():
        assert value(pixels) == pytest.approx(rows[name], abs=0.02)
        # With these pixels a little bluer there is nothing to choose, and luma by integers is the same everywhere.
        blue = pixels[..., 2].astype(int)
        blue[ties(pixels)] += np.where(blue[ties(pixels)] < 255, 1, -1)
        pixels[..., 2] = blue
        luma = np.rint(pixels.astype(int) @ [299, 587, 114] / 1000)
        expected = float(niqe(torch.from_numpy(luma)[None, None], real_niqe[1][0], real_niqe[1][1][None]))
        assert value(pixels) == pytest.approx(expected, abs=1e-6)


@pytest.mark.data
def test_the_calibration_of_niqe_holds_with_the_real_model(real_niqe):
    from ntire.scoring.calibration import NIQE_PINNED, texture

    assert not ties(texture()).any(), "the check of an installation does not depend on the processor"
    assert float(real_niqe[0].observe([View(texture())])[0][0]) == pytest.approx(NIQE_PINNED, abs=1e-3)
