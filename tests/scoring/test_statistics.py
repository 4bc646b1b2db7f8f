import numpy as np
import pytest

from ntire.scoring.statistics import Sample, sensitivity, uncertainties
from ntire.scoring.track import Term, Track

TRACK = Track(
    name="t",
    title="t",
    inputs="srgb",
    metrics=("psnr", "ssim", "fid"),
    terms=(Term(metric="psnr", scale=1.0), Term(metric="fid", scale=-0.01, offset=1.0, floor=0.0)),
    source="s",
)


def sample(values, fid=50.0):
    return Sample({"psnr": list(values)}, {"fid": fid})


def test_where_subsets_count_alike_images_are_drawn_from_each():
    tasks = Track(
        name="t", title="t", inputs="general", average="subsets", subsets={"few": 40, "many": 400}, metrics=("psnr",),
        terms=(Term(metric="psnr", scale=1.0),), source="s",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    few, many = rng.normal(20, 2, 40), rng.normal(30, 2, 400)
    subsets = ["few"] * 40 + ["many"] * 400
    (found,) = uncertainties(tasks, [Sample({"psnr": [*few, *many]}, {}, subsets)])
    middle, half = (
        (few.mean() + many.mean()) / 2,
        1.96 * np.hypot(few.std() / np.sqrt(40), many.std() / np.sqrt(400)) / 2,
    )
    assert found.total[0] == pytest.approx(middle - half, abs=0.03)
    assert found.total[1] == pytest.approx(middle + half, abs=0.03)


def test_the_interval_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(30, 2, 400)
    (found,) = uncertainties(TRACK, [sample(values)])
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.total[0] == pytest.approx(values.mean() + 0.5 - half, abs=0.03)
    assert found.total[1] == pytest.approx(values.mean() + 0.5 + half, abs=0.03)
    assert found.rank == (1, 1)
    assert found.better_than_next is None


def test_pairing_sees_a_small_difference_that_unpaired_intervals_hide():
    images = np.random.default_rng(0).normal(30, 4, 200)
    better, worse = sample(images + 0.05 + np.random.default_rng(1).normal(0, 0.1, 200)), sample(images)
    first, second = uncertainties(TRACK, [better, worse])
    assert first.total[0] < second.total[1], "the intervals overlap by far"
    assert first.better_than_next > 0.999
    assert (first.rank, second.rank) == ((1, 1), (2, 2))


def test_a_difference_that_is_noise_is_not_called_better():
    rng = np.random.default_rng(0)
    one, two = rng.normal(30, 1, (2, 100))
    first, second = uncertainties(TRACK, [sample(one), sample(two + one.mean() - two.mean() - 1e-6)])
    assert 0.3 < first.better_than_next < 0.7
    assert first.rank == second.rank == (1, 2)


def test_the_same_seed_gives_the_same_intervals():
    samples = [sample(np.random.default_rng(number).normal(30, 1, 50)) for number in range(3)]
    assert uncertainties(TRACK, samples) == uncertainties(TRACK, samples)


@pytest.mark.parametrize("values", [[30.0], [30.0, float("inf")], [30.0, float("nan")]])
def test_without_finite_values_of_several_images_there_is_no_interval(values):
    assert uncertainties(TRACK, [sample(values)]) is None


def test_leaving_out_a_metric_moves_ranks_as_computed_by_hand():
    means = [{"psnr": 30.0, "fid": 90.0}, {"psnr": 29.5, "fid": 10.0}]
    # With both: 30.1 and 30.4. Without fid the first leads, without psnr the second does.
    placed = {number: (TRACK.total(of), of) for number, of in enumerate(means)}
    moved = sensitivity(TRACK, placed)
    assert moved == {"all": {0: 2, 1: 1}, "psnr": {0: 2, 1: 1}, "fid": {0: 1, 1: 2}}
    # A final with marks is more than the formula of the means, which says nothing of its ranks.
    assert sensitivity(TRACK, {number: (total + 20.0 * number, of) for number, (total, of) in placed.items()}) == {}
