"""Every track's formula, held to examples computed by hand from what the organisers print, never by the program."""

import pytest

from ntire.scoring.track import all_tracks, load_track

RAIM = [
    # 20 PSNR/50 + 15 (SSIM - 0.5)/0.5 + 20 (1 - LPIPS/0.4) + 40 (1 - DISTS/0.3) + 30 (1 - NIQE/10)
    ({"psnr-y": 30.0, "ssim-y": 0.8, "lpips": 0.2, "dists": 0.15, "niqe": 4.0}, 12 + 9 + 10 + 20 + 18),
    ({"psnr-y": 25.0, "ssim-y": 0.9, "lpips": 0.1, "dists": 0.06, "niqe": 3.0}, 10 + 12 + 15 + 32 + 21),
    ({"psnr-y": 50.0, "ssim-y": 1.0, "lpips": 0.0, "dists": 0.0, "niqe": 0.0}, 20 + 15 + 20 + 40 + 30),
    # No term has a floor.
    ({"psnr-y": 0.0, "ssim-y": 0.0, "lpips": 0.8, "dists": 0.6, "niqe": 20.0}, 0 - 15 - 20 - 40 - 30),
]
FACE_METRICS = ("clipiqa", "maniqa", "musiq", "qalign", "niqe", "fid")
FACE = [
    # CLIP-IQA + MANIQA + MUSIQ/100 + Q-Align/5 + max(0, (10 - NIQE)/10) + max(0, (100 - FID)/100)
    (dict(zip(FACE_METRICS, means, strict=True)), by_hand)
    for means, by_hand in (
        ((0.6, 0.5, 70.0, 4.0, 4.0, 60.0), 0.6 + 0.5 + 0.7 + 0.8 + 0.6 + 0.4),
        ((0.9, 0.7, 80.0, 4.5, 3.0, 25.0), 0.9 + 0.7 + 0.8 + 0.9 + 0.7 + 0.75),
        ((0.6, 0.5, 70.0, 4.0, 12.0, 60.0), 0.6 + 0.5 + 0.7 + 0.8 + 0.0 + 0.4),
        ((0.6, 0.5, 70.0, 4.0, 4.0, 150.0), 0.6 + 0.5 + 0.7 + 0.8 + 0.6 + 0.0),
    )
]
PSNR = [
    ({"psnr": 28.5, "ssim": 0.9, "ssim-skimage": 0.9, "ssim-rgb": 0.9}, 28.5),
    ({"psnr": 0.0, "ssim": 1.0, "ssim-skimage": 1.0}, 0.0),
]
PERCEPTUAL = [
    (dict(zip(("lpips", "dists", "clipiqa", "maniqa", "musiq", "niqe"), values, strict=True)), by_hand)
    for values, by_hand in (
        ((0.2, 0.1, 0.7, 0.5, 70.0, 4.0), 0.8 + 0.9 + 0.7 + 0.5 + 0.7 + 0.6),
        ((0.3, 0.2, 0.6, 0.4, 60.0, 14.0), 0.7 + 0.8 + 0.6 + 0.4 + 0.6 + 0.0),
    )
]
EXAMPLES = {
    **dict.fromkeys(("raim-2024", "raim-2025-raw", "raim-2025-srgb"), RAIM),
    **dict.fromkeys(("face-2025", "face-2026"), FACE),
    **dict.fromkeys(("demo-raw", "demo-srgb", "denoise", "general"), PSNR),
    **{f"denoise{sigma}{protocol}": PSNR for sigma in ("-15", "-50") for protocol in ("", "-float", "-truncated")},
    **dict.fromkeys(("denoise-25-float", "denoise-25-truncated"), PSNR),
    "image-sr-x4": [({"psnr-y": 28.5}, 28.5), ({"psnr-y": 0.0}, 0.0)],
    "image-sr-x4-perceptual": PERCEPTUAL,
    **dict.fromkeys(("mixed", "multi-3", "multi-5", "multi-10", "mixed-reds", "mixed-lolblur", "deblur-gopro"), PSNR),
    **dict.fromkeys(("dehaze-sots", "dehaze-revide", "derain-rain100l", "derain-rain100h", "desnow-realsnow"), PSNR),
    **dict.fromkeys(("low-light-lol-v1", "low-light-lol-v2", "underwater", "denoise-50-daclip"), PSNR),
    **dict.fromkeys(("under-display-poled", "under-display-toled"), PSNR),
    **{f"setting-a-{task}": PSNR for task in ("haze", "rain", "snow", "low-light")},
    **{f"denoise-{sigma}-urban100": PSNR for sigma in (15, 25, 50)},
    "weather": [({"psnr-y-bgr": 28.5, "ssim-y-bgr": 0.9}, 28.5)],
}
THRESHOLDS = {
    "face-2025": {"CelebA": 0.5, "LFW-Test": 0.6, "CelebChild-Test": 0.6, "WebPhoto-Test": 0.3, "Wider-Test": 0.3},
    "face-2026": {"CelebA": 0.5, "LFW-Test": 0.6, "CelebChild-Test": 0.6, "WebPhoto-Test": 0.25, "Wider-Test": 0.2},
}
"""Least similarity of a face to its input, as the scoring programs have it; ten faces of the set may miss it."""
FACES = {"CelebA": 100, "LFW-Test": 100, "CelebChild-Test": 50, "WebPhoto-Test": 100, "Wider-Test": 100}


def test_every_track_with_a_formula_has_worked_examples():
    assert {track.name for track in all_tracks() if track.terms} == EXAMPLES.keys()
    assert {track.name for track in all_tracks() if track.gates} == THRESHOLDS.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_formula_gives_what_the_hand_gives(name):
    track = load_track(name)
    for means, by_hand in EXAMPLES[name]:
        assert track.total(means) == pytest.approx(by_hand, abs=1e-9)
    # No term is left out of the examples, and none reads a metric that they do not give.
    read = {term.metric for term in track.terms}
    means, by_hand = EXAMPLES[name][0]
    assert read <= means.keys()
    for metric in read:
        assert track.total({**means, metric: means[metric] + 0.01}) != pytest.approx(by_hand, abs=1e-9)


@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_gate_has_the_thresholds_of_its_edition(name):
    track = load_track(name)
    (gate,) = track.gates
    assert (gate.metric, gate.max_failures, dict(gate.thresholds)) == ("adaface", 10, THRESHOLDS[name])
    assert track.subsets == FACES


@pytest.mark.parametrize("name", ["raim-2024", "raim-2025-raw", "raim-2025-srgb"])
def test_raim_scores_luma_without_a_border_of_four_pixels(name):
    assert load_track(name).border == 4


def test_the_noise_of_a_denoising_track_is_the_one_in_its_name():
    sigmas = {track.name: track.noise.sigma for track in all_tracks() if track.noise is not None}
    protocols = ("-float", "-truncated", "-urban100")
    by_name = {f"denoise-{sigma}{protocol}": sigma for sigma in (15, 25, 50) for protocol in protocols}
    others = {"denoise": 25.0, "denoise-15": 15.0, "denoise-50": 50.0, "denoise-50-daclip": 50.0}
    assert sigmas == {**others, **by_name}
