"""A plan's arithmetic: what is measured counts, what is not is marked, and slots are dealt out as engines do it."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntire import UserError
from ntire.benchmark import forecast
from ntire.benchmark.forecast import Hardware, known_costs, observing, reached_shares, read_measured, restoring
from ntire.benchmark.planning import Challenge, Cluster, ClusterPlan
from ntire.benchmark.schedule import SHARD_S, Load, schedule
from ntire.commands.planning import chosen_metrics, described
from ntire.entry.journal import Journal
from ntire.method.catalogue import look_up
from ntire.scoring.fid import fid_inception
from ntire.scoring.metrics import METRICS
from ntire.scoring.track import load_track
from tests.made import scene, write_png

H100 = Hardware("H100", 16)
FRAME = 3072 * 4096
loads = st.lists(
    st.builds(Load, st.just("x"), st.integers(1, 60), st.floats(0.01, 300.0), st.just(0.0)), min_size=1, max_size=5
)


@settings(max_examples=60, deadline=None)
@given(loads, st.integers(1, 20))
def test_a_schedule_does_all_and_no_worse_than_any_greedy_one(work, slots):
    made = schedule(work, slots)
    total = sum(load.total_s for load in work)
    longest = max(load.seconds for load in work)
    assert made.busy_s == pytest.approx(total)
    assert max(total / slots, longest) <= made.wall_s * (1 + 1e-9)
    shard = max(max(SHARD_S, 1.5 * load.seconds) for load in work)
    assert made.wall_s <= total / slots + shard + 1e-6


def test_a_slow_method_has_shards_of_one_picture_and_a_fast_one_of_minutes():
    slow, fast = Load("slow", 10, 500.0, 0.0), Load("fast", 36_000, 0.5, 0.0)
    assert schedule([slow, fast], 4).shards == (10, 100)


def test_every_slot_loads_what_it_takes_up_and_only_then():
    work = [Load("one", 100, 10.0, 30.0), Load("two", 100, 10.0, 30.0)]
    alone = schedule(work, 1)
    assert alone.load_s == 2 * 30
    assert alone.wall_s == 2 * 1000 + 2 * 30
    assert schedule(work, 2).load_s == 4 * 30, "both begin with the same, and take up the other when that is done"
    assert schedule([], 8).wall_s == 0


def test_what_is_only_counted_takes_the_time_of_its_multiply_adds_at_the_share_that_reports_reach():
    method = look_up("NJUST-KMG", "raw")
    found = restoring(method, FRAME, True, H100)
    flops = 2 * method.counts.macs * FRAME / 1024**2
    shares = sorted(reached_shares().values())
    middle = (shares[len(shares) // 2] + shares[~(len(shares) // 2)]) / 2
    assert found.basis == "counted"
    assert found.gpu_s[0] == pytest.approx(flops / (middle * 66.9e12))
    assert found.gpu_s[1] < found.gpu_s[0] < found.gpu_s[2]
    assert found.cpu_s == pytest.approx(
        FRAME * (known_costs().files.read_raw_ns + known_costs().files.write_png_ns) / 1e9
    )
    half = restoring(method, FRAME, True, Hardware("H100", 16, half=True))
    assert half.gpu_s[0] == pytest.approx(found.gpu_s[0] / 2)


def test_a_reports_time_is_carried_over_by_the_rate_that_promises_less():
    found = restoring(look_up("MiAlgo", "raw"), FRAME, True, H100)
    assert found.basis == "report"
    assert found.gpu_s[0] == pytest.approx(0.320 / (3.35 / 2.04))
    assert restoring(look_up("MiAlgo", "raw"), FRAME, True, Hardware("A100", 16)).gpu_s[0] == pytest.approx(0.320)
    assert reached_shares()["MiAlgo raw"] == pytest.approx(2 * 185.114e9 * 12 / 0.32 / 19.5e12, rel=1e-3)


def journal(folder, device, precision="fp32", seconds=0.5):
    header = {"team": "MiAlgo", "track": "raim-2025-raw", "variant": "phase3", "device": device, "precision": precision}
    folder.mkdir()
    with Journal(folder / "journal.jsonl", header) as file:
        for name in "ab":
            file.append(
                {"image": name, "status": "done", "seconds": seconds, "height": 1000, "width": 500, "input_sha256": ""}
            )
        file.append(
            {"image": "c", "status": "failed", "seconds": None, "height": None, "width": None, "input_sha256": ""}
        )
    return folder


def test_times_of_a_run_on_that_gpu_count_and_others_do_not(tmp_path):
    method = look_up("MiAlgo", "raw")
    here = read_measured(journal(tmp_path / "here", "NVIDIA H100 80GB HBM3"))
    found = restoring(method, FRAME, True, H100, [here])
    assert found.basis == "measured"
    assert found.gpu_s == (pytest.approx(0.5 * FRAME / 500_000),) * 3
    for name, device, precision in (
        ("a", "NVIDIA A100-SXM4-80GB", "fp32"),
        ("b", "NVIDIA H100 PCIe", "bf16"),
        ("c", "cpu", "fp32"),
    ):
        assert (
            restoring(method, FRAME, True, H100, [read_measured(journal(tmp_path / name, device, precision))]).basis
            == "report"
        )
    assert restoring(look_up("MiAlgo", "raw", "phase2"), FRAME, True, H100, [here]).basis == "counted"


def test_the_json_of_bench_counts_as_well(tmp_path):
    file = tmp_path / "bench.json"
    times = {"median_ms": 40.0, "mean_ms": 41.0}
    facts = {"device": "NVIDIA H100 80GB HBM3", "precision": "fp32"}
    found = {"method": "MiAlgo", "track": "raw", "variant": "", "inputs": [[1000, 500]], "environment": facts}
    file.write_text(json.dumps(found | {"restore_on_device": times, "end_to_end": {"median_ms": 90.0}}))
    assert read_measured(file).ns_per_pixel == pytest.approx(80.0)
    file.write_text("{}")
    with pytest.raises(UserError, match=r"expected a submission folder of `ntire run`, or the JSON of `ntire bench"):
        read_measured(file)


def test_every_metric_has_a_cost_and_a_network_of_ours_is_counted_as_it_says():
    assert set(METRICS) == set(known_costs().metrics)
    import torch

    from ntire.method.counters import look

    with torch.device("meta"):
        network = fid_inception()
    counted = look(network, torch.empty(1, 3, 299, 299, device="meta")).dispatch.total()
    assert counted == pytest.approx(known_costs().metrics["fid"].macs_at(512**2), rel=1e-3)


def test_a_metric_grows_with_pixels_as_its_two_sizes_say():
    lpips = known_costs().metrics["lpips"]
    assert lpips.macs_at(512**2) == pytest.approx(7.300e9)
    assert lpips.macs_at(1024**2) == pytest.approx(29.914e9)
    assert observing("lpips", FRAME, H100).basis == "counted"
    with pytest.raises(UserError, match="expected a GPU whose rates are known. Did you mean H100"):
        observing("lpips", FRAME, Hardware("H10", 16))


def faces(**changed):
    given = {"track": load_track("face-2025"), "methods": (), "pictures": 450, "pixels": 512.0**2, "entries": 30}
    return Challenge(**{**given, "metrics": ("fid", "adaface"), **changed})


def test_entries_are_observed_each_and_references_once():
    fid, adaface, read = ClusterPlan(faces(), H100).scored
    assert (fid.times, adaface.times, read.times) == (30, 31, 31)
    one = observing("adaface", 512**2, H100).gpu_s[0]
    assert adaface.forecast.gpu_s[0] == pytest.approx(31 * one)
    assert read.forecast.cpu_s == pytest.approx(31 * known_costs().files.read_png_ns * 512**2 / 1e9)


def test_a_worker_that_scores_holds_all_metrics():
    made = ClusterPlan(faces(metrics=("niqe", "fid")), H100)
    alone = made.on(Cluster(H100, 1, 8, 100.0)).scoring
    niqe, fid, read = (item.forecast for item in made.scored)
    each = max(fid.gpu_s[0], (niqe.cpu_s + read.cpu_s) / 16)
    assert alone.busy_s - alone.load_s == pytest.approx(450 * each)
    assert alone.load_s == pytest.approx(forecast.load_s(made.storage()["weights_a_node"]))


def test_transfer_and_storage_are_sums_that_can_be_checked_by_hand():
    made = ClusterPlan(faces(methods=(look_up("HH", "face"), look_up("CX", "face"))), H100)
    png = 1.58 * 512**2
    found = made.transfer(3)
    assert found.inputs == found.results == pytest.approx(2 * 450 * png)
    assert found.scored == pytest.approx((30 + 1) * 450 * png)
    assert found.weights == 3 * made.storage()["weights_a_node"] > 3 * 5e9
    assert made.storage()["observations"] == 450 * (30 * (2048 * 8 + 100) + 31 * (512 * 8 + 100))


def test_more_gpus_take_no_longer_and_a_thin_network_is_what_one_waits_for():
    made = ClusterPlan(faces(methods=(look_up("HH", "face"),)), H100)
    walls = [made.on(Cluster(H100, gpus, 8, 1.25)).wall_s for gpus in (1, 8, 64)]
    assert walls == sorted(walls, reverse=True)
    thin = made.on(Cluster(H100, 64, 8, 0.01))
    assert thin.wall_s == thin.transfer_s > walls[2]


def test_pictures_of_ones_own_say_how_many_and_how_large(tmp_path):
    for number, size in enumerate(((20, 30), (40, 30))):
        write_png(tmp_path / f"{number}.png", scene(*size, seed=number))
    found = described(load_track("srgb"), "MiAlgo,NJUST-KMG", None, None, tmp_path, None, None)
    assert (found.pictures, found.pixels, found.entries, found.metrics) == (2, 900.0, 0, ())
    assert found.input_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.png")) / 2


def test_all_that_is_wrong_with_the_names_is_told_at_once():
    with pytest.raises(UserError) as found:
        described(load_track("srgb"), "MiAlg,MiAlgo,Nobody", 3, (4, 4), None, None, None)
    assert "MiAlg'" in str(found.value)
    assert "Nobody" in str(found.value)
    with pytest.raises(UserError, match="no metric a, lpip; there are.*Did you mean lpips"):
        chosen_metrics("a,lpip", load_track("srgb"), scored=True)
    with pytest.raises(UserError, match="nothing to plan"):
        described(load_track("srgb"), "", 3, (4, 4), None, None, None)
    with pytest.raises(UserError, match="add --pictures 450 --size 512x512"):
        described(load_track("srgb"), "MiAlgo", None, None, None, None, None)


def test_no_network_is_imported_for_a_plan_and_json_has_all_figures():
    words = ["plan", "--track", "face-2025", "--teams", "all", "--entries", "30", "--gpus", "8,64", "--json"]
    program = "import sys; from ntire.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    ran = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert [one["gpus"] for one in found["clusters"]] == [8, 64]
    assert {one["basis"] for one in found["work"]} == {"counted", "report", "core"}
    for one in found["clusters"]:
        assert one["wall_s_range"][0] <= one["wall_s"] <= one["wall_s_range"][1]
        assert one["restoring"]["busy_s"] - one["restoring"]["load_s"] == pytest.approx(
            450 * sum(work["slot_s"] for work in found["work"] if work["for"] == "restoring")
        )


def test_a_gpu_is_known_by_its_drivers_name():
    for device, gpu, same in (
        ("NVIDIA H100 80GB HBM3", "H100", True),
        ("NVIDIA A100-SXM4-80GB", "A100", True),
        ("NVIDIA GeForce RTX 4090", "RTX 4090", True),
        ("NVIDIA RTX A6000", "A6000", True),
        ("NVIDIA H200", "H100", False),
        ("cpu", "H100", False),
    ):
        assert forecast._same(device, gpu) == same


def test_times_that_do_not_count_are_named(ntire, tmp_path):
    words = (
        "plan",
        "--track",
        "raw",
        "--teams",
        "MiAlgo",
        "--pictures",
        10,
        "--size",
        "100x100",
        "--json",
        "--measured",
    )
    used = ntire(*words, journal(tmp_path / "here", "NVIDIA H100 80GB HBM3"))
    assert (used.code, used.err) == (0, "")
    other = ntire(*words, journal(tmp_path / "there", "cpu"))
    assert other.code == 0
    told = "not used, as it is of MiAlgo raw phase3 on cpu in fp32; this plan is for H100 in fp32"
    assert told in " ".join(other.err.split())
