import pytest

from ntire import UserError
from ntire.method.catalogue import folders
from ntire.scoring.track import Track, all_tracks, in_words, load_track, sample_track

GOOD = """
name = "mine"
title = "My track"
inputs = "srgb"
metrics = ["psnr", "ssim"]
terms = [{ metric = "psnr", scale = 0.4 }, { metric = "ssim", scale = 30, offset = -15, floor = 0 }]
tie_break = ["ssim"]
source = "made for tests"
"""

MADE = 'source = "made for tests"\n'


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return str(path)

    return write


def test_every_track_that_ships_is_read_and_has_methods():
    names = [track.name for track in all_tracks()]
    assert {"demo-raw", "demo-srgb", "raim-2025-raw", "raim-2025-srgb"} <= set(names)
    for track in all_tracks():
        assert track.inputs in folders()
        assert track.name in in_words(track)
        assert all(metric in in_words(track) for metric in track.metrics)


def test_a_kind_of_input_names_its_default_track_and_its_sample_track():
    assert load_track("raw").name == "raim-2025-raw"
    assert load_track("raim-2025-srgb").inputs == "srgb"
    assert sample_track("srgb").name == "demo-srgb"
    with pytest.raises(UserError, match=r"unknown track: 'rwa'. Did you mean raw\?"):
        load_track("rwa")


def test_an_organiser_adds_a_track_with_one_toml(toml):
    track = load_track(toml(GOOD))
    assert track.total({"psnr": 30.0, "ssim": 0.9}) == pytest.approx(0.4 * 30 + 30 * 0.9 - 15)
    assert track.total({"psnr": 30.0, "ssim": 0.3}) == pytest.approx(12), "the floor holds"
    assert track.total({"psnr": 30.0}) is None
    assert "0.4 psnr + max(0, 30 ssim - 15)" in in_words(track)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('metrics = ["psnr", "ssim"]', 'metrics = ["psnr", "sim"]', "unknown metric 'sim'"),
        ('metrics = ["psnr", "ssim"]', 'metrics = ["psnr"]', "'ssim' is used but is not among"),
        ('title = "My track"', "", "title: Field required"),
        ('inputs = "srgb"', 'inputs = "rgb"', "line 4: inputs: Input should be 'raw', 'srgb'"),
        ('source = "made', 'verified = false\nsource = "made', "needs a remark"),
        ("scale = 0.4", 'scale = "much"', "line 6: terms.0.scale: Input should be a valid number"),
        (MADE, MADE + "[budgets]\nmacs_g = 3\n", "budget of macs_g needs the size"),
        (
            MADE,
            MADE + '[[gates]]\nname = "g"\nmetric = "psnr"\nthresholds = { A = 1 }\nmax_failures = 1\n',
            "one threshold",
        ),
        ("tie_break", "tie_brake", "line 7: tie_brake: Extra inputs"),
        ('name = "mine"', 'name = "mine', "not valid TOML: .*line 2"),
        (MADE, MADE + 'average = "subsets"\n', "an average over subsets needs to know them"),
        (MADE, MADE + "[subsets]\nA = 1\n[noises.B]\nsigma = 5\nseed = 0\n", "noises: 'B' is not among the subsets"),
    ],
)
def test_every_mistake_in_a_toml_is_told_with_its_line(toml, old, new, message):
    assert old in GOOD
    with pytest.raises(UserError, match=message):
        load_track(toml(GOOD.replace(old, new)))


def test_several_mistakes_are_told_at_once(toml):
    with pytest.raises(UserError) as caught:
        load_track(toml(GOOD.replace('inputs = "srgb"', 'inputs = "rgb"').replace('"My track"', "7")))
    assert "line 3: title" in str(caught.value)
    assert "line 4: inputs" in str(caught.value)


def test_a_total_is_the_exact_sum_of_its_terms():
    terms = [{"metric": "psnr", "scale": 0.1}] * 10
    track = Track(name="t", title="t", inputs="raw", metrics=("psnr",), terms=terms, source="s")
    assert track.total({"psnr": 1.0}) == 1.0


def test_the_general_tracks_average_over_kinds_of_damage_and_say_which_noise_they_add():
    words = in_words(load_track("multi-3"))
    assert "average    of the subsets' means, each counting alike" in words
    assert "noisy-50: Gaussian, sigma 50 of 255" in words
    assert [len(load_track(name).subsets) for name in ("multi-3", "multi-5", "multi-10", "mixed")] == [5, 5, 10, 11]
    assert load_track("multi-5").mean({"hazy": 1, "rainy": 2, "noisy": 3, "motion-blurry": 4, "low-light": 5}) == 3
