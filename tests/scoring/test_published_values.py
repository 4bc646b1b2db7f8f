import json
import shutil

import numpy as np
import pytest
import scipy.io

from ntire import UserError
from ntire.method.weights_files import cache_folder
from ntire.scoring import calibration, published_values
from ntire.scoring.metrics import METRICS
from ntire.scoring.published_values import PICTURES, calibrate, unproven

pytestmark = pytest.mark.data


def niqe_file(data, change=0.0):
    """The authors' NIQE model where pyiqa looks for it, or one with another mean."""
    real = np.load(data / "weights" / "niqe_pris_params.npz")
    path = cache_folder("pyiqa") / "niqe_modelparameters.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"mu_prisparam": real["mu_pris_param"] + change, "cov_prisparam": real["cov_pris_param"]})
    return path


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A place for metrics' weights that no other test sees; pyiqa fixes its own when it is imported."""
    pyiqa = pytest.importorskip("pyiqa", reason="needs the extra ntire[iqa]")
    del pyiqa
    path = cache_folder("pyiqa") / "niqe_modelparameters.mat"
    before = path.read_bytes() if path.is_file() else None
    yield path
    path.unlink(missing_ok=True)
    if before is not None:
        path.write_bytes(before)


def states(data, *names):
    return {proof.metric: proof for proof in calibrate(data / "calibration", "cpu", names)}


def test_metrics_that_give_their_published_values_are_proven_and_remembered(data, own_cache):
    niqe_file(data)
    found = states(data, "psnr", "ssim", "niqe")
    assert {name: proof.state for name, proof in found.items()} == dict.fromkeys(found, "proven"), found
    assert "pyiqa" in found["niqe"].found
    assert unproven({"niqe": METRICS["niqe"].identity("cpu"), "psnr": METRICS["psnr"].identity("cpu")}) == ()


def test_another_file_is_drift_named_with_its_place_and_the_library_and_no_longer_believed(data, own_cache):
    niqe_file(data)
    states(data, "niqe")
    path = niqe_file(data, change=0.5)
    assert unproven({"niqe": METRICS["niqe"].identity("cpu")}) == ("niqe",)
    proof = states(data, "niqe")["niqe"]
    assert proof.state == "drifted"
    for part in ("I03.bmp", "for 15.6538", str(path), "sha256", f"pyiqa {METRICS['niqe'].versions()[0].split()[1]}"):
        assert part in proof.found
    with pytest.raises(UserError, match="nothing is ranked") as caught:
        calibration.refuse_drift(["niqe"])
    assert str(path) in str(caught.value)
    assert "ntire weights fetch niqe" in str(caught.value)


def test_what_cannot_be_proven_says_what_is_missing_and_how_to_get_it(data, tmp_path, ntire, monkeypatch):
    monkeypatch.setenv("NTIRE_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    ran = ntire("doctor", "--calibrate", data / "calibration", "--device", "cpu", "--json")
    assert ran.code == 0, ran.out
    found = {check["name"].removeprefix("published values: "): check for check in ran.json()}
    assert found["psnr"]["state"] == "ok"
    assert found["lpips"]["state"] == "absent"
    assert "ntire weights fetch lpips" in found["lpips"]["found"]
    assert "LPIPS_v0.1_alex-df73285e.pth" in found["lpips"]["found"]
    assert set(found) == set(METRICS)


def test_pictures_that_are_not_the_published_ones_are_told_all_at_once(data, tmp_path):
    shutil.copytree(data / "calibration", tmp_path / "c", copy_function=shutil.copyfile)
    (tmp_path / "c" / "dist" / "I04.bmp").write_bytes(b"BM")
    (tmp_path / "c" / "ref" / "I19.bmp").unlink()
    with pytest.raises(
        UserError, match=r"(?s)dist/I04.bmp: another picture.*ref/I19.bmp: not there.*git clone"
    ) as caught:
        calibrate(tmp_path / "c", "cpu")
    assert caught.value.exit_code == 2


def test_a_damaged_list_of_what_was_proven_proves_nothing(data):
    states(data, "psnr")
    kept = published_values._kept()
    assert json.loads(kept.read_text())
    kept.write_text("{")
    assert unproven({"niqe": "x"}) == ("niqe",)


def test_the_published_values_are_those_of_the_table(data):
    table = [line.split(",") for line in (data / "calibration" / "expected.csv").read_text().splitlines()]
    assert [row[0] for row in table[1:]] == list(PICTURES)
    for number, name in enumerate(table[0][1:], 1):
        published = published_values.PUBLISHED[name]
        ours = [float(row[number]) for row in table[1:]]
        assert ours == pytest.approx(published.values, abs=published.tolerance)
