import json
import math
import random

import pytest
from episode_tools.report import (
    EpisodeRecord,
    Report,
    ReportError,
    bundle_identity,
    closing_table,
    episode_line,
    prepare_report_path,
)


def record(task, success, **values):
    defaults = {
        "trial": 0,
        "seed": 1_000_000,
        "success_time_s": None,
        "termination": "horizon",
        "steps": 40,
        "missed_ticks": 0,
        "duration_s": 8.0,
        "rate_hz": 5.0,
        "inference_p50_ms": 4.0,
        "inference_p95_ms": 5.0,
        "inference_p99_ms": 6.0,
    }
    return EpisodeRecord(task=task, success=success, **{**defaults, **values})


def random_report(seed):
    rng = random.Random(seed)
    outcomes = [(rng.choice("abc"), rng.choice([True, False])) for _ in range(40)]
    report = Report(context={"seed": seed})
    report.episodes = [record(task, success) for task, success in outcomes]
    return report, outcomes


@pytest.mark.parametrize("seed", [0, 17, 4242])
def test_file_holds_every_episode_and_sums_that_agree(tmp_path, seed):
    report, outcomes = random_report(seed)
    path = tmp_path / "report.json"
    report.write(path)
    written = json.loads(path.read_text())
    assert [(row["task"], row["success"]) for row in written["episodes"]] == outcomes
    for task, rate in written["summary"]["tasks"].items():
        mine = [success for name, success in outcomes if name == task]
        assert (rate["successes"], rate["trials"]) == (sum(mine), len(mine))
        assert rate["wilson_95"][0] <= rate["rate"] <= rate["wilson_95"][1]
    assert written["summary"]["overall"]["trials"] == len(outcomes)


def test_not_a_number_is_written_as_null(tmp_path):
    report = Report(context={}, episodes=[record("a", None, rate_hz=math.nan)])
    report.write(tmp_path / "report.json")
    row = json.loads((tmp_path / "report.json").read_text())["episodes"][0]
    assert row["rate_hz"] is None and row["success"] is None


def test_a_failed_write_keeps_the_old_file_and_leaves_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    path.write_text("old")

    def no_space(_handle):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(ReportError, match="no space"):
        Report(context={}).write(path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_path_that_cannot_be_written_is_refused_before_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="directory"):
        prepare_report_path(tmp_path)
    with pytest.raises(ReportError, match="folder"):
        prepare_report_path(tmp_path / "file" / "report.json")
    prepare_report_path(tmp_path / "new" / "report.json")


def test_lines_name_the_outcome():
    line = episode_line(3, 50, record("open_drawer", True, steps=23, missed_ticks=2))
    assert "3/50" in line and "success" in line and "steps  23" in line and "misses 2" in line
    report = Report(context={}, episodes=[record("a", True), record("a", False), record("b", None)])
    table = closing_table(report)
    assert "1/2" in table[1] and "50.0 %" in table[1] and "9 .. 91 %" in table[1]
    assert "not judged" in table[2]
    assert table[-1].startswith("all")


def test_bundle_identity_changes_with_its_yaml(tmp_path):
    bundle = tmp_path / "ptr"
    bundle.mkdir()
    with pytest.raises(ReportError, match="none"):
        bundle_identity(str(bundle))
    (bundle / "ptr.yaml").write_text("a: 1\n")
    first = bundle_identity(str(bundle))
    (bundle / "ptr.yaml").write_text("a: 2\n")
    second = bundle_identity(str(bundle))
    assert first["name"] == "ptr" and first["sha256"] != second["sha256"]
