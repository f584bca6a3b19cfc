import json
import math
import random

import pytest
from episode_tools.episode_plan import plan_episodes
from episode_tools.report import (
    EpisodeRecord,
    Report,
    ReportError,
    bundle_identity,
    closing_table,
    continue_report,
    episode_line,
    prepare_report_path,
    spoiled_line,
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
    line = episode_line(3, 50, record("open_drawer", True, steps=23, attempt=2))
    assert "3/50" in line and "success" in line and "steps  23" in line and "attempt 2" in line
    line = spoiled_line(3, 50, record("open_drawer", None, spoiled_by=("why", "and that")))
    assert "no trial, attempt 1: why; and that" in line
    report = Report(context={}, episodes=[record("a", True), record("a", False), record("b", None)])
    table = closing_table(report)
    assert "1/2" in table[1] and "50.0 %" in table[1] and "9 .. 91 %" in table[1]
    assert "not judged" in table[2]
    assert table[4].startswith("all")
    assert "2 trials say little" in table[5]


def test_the_table_tells_of_spoiled_attempts_and_of_another_pace():
    trial = record("a", True, duration_s=8.0, real_time_factor=0.4)
    slower = record("a", True, duration_s=4.0, real_time_factor=0.2)
    context = {"simulated_clock": True, "rtf": 0.5}
    report = Report(context=context, episodes=[trial] * 20 + [slower] * 20)
    report.spoiled = [record("a", None, spoiled_by=("late",))] * 3
    table = "\n".join(closing_table(report))
    assert (
        "0.30 times real time, 0.5 at most" in table
        and "3 of 43 attempts" in table
        and "little" not in table
    )
    assert report.overall().trials == 40


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


SETTINGS = {
    "policy": "ptr",
    "model": {"name": "ptr", "sha256": "ab12"},
    "simulated": True,
    "rtf": 1.0,
    "seed": 4,
    "tasks": ["a", "b"],
    "max_steps": 0,
    "success_hold_s": 0.6,
    "settle_s": 0.4,
    "launch_arguments": {"arm": "sim", "rate_hz": None},
    "versions": {"python": "3.13"},
}


def interrupted_run(path, seed):
    """A report as a run leaves it that was killed after some episodes, and its plan."""
    rng = random.Random(seed)
    planned = plan_episodes(SETTINGS["tasks"], rng.randrange(5, 30), SETTINGS["seed"])
    report = Report(context={**SETTINGS, "created": "then", "command": "ros2 launch a b"})
    for plan in planned[: rng.randrange(1, len(planned))]:
        values = {"trial": plan.trial, "seed": plan.seed}
        if rng.random() < 0.3:
            causes = ("2 ticks were late",)
            report.spoiled.append(
                record(plan.task, None, **values, spoiled_by=causes, rate_hz=math.nan)
            )
        report.episodes.append(
            record(plan.task, rng.random() < 0.5, **values, counters={"control.lost": 1.0})
        )
    report.write(path)
    return report, planned


@pytest.mark.parametrize("seed", range(6))
def test_a_report_is_continued_where_it_ends(tmp_path, seed):
    path = tmp_path / "report.json"
    report, planned = interrupted_run(path, seed)
    again = continue_report(path, {**SETTINGS, "created": "now", "command": "x"}, planned)
    assert again.episodes == report.episodes and not again.complete
    assert [str(record) for record in again.spoiled] == [str(record) for record in report.spoiled]
    assert again.context["created"] == "then" and again.context["continued"] == ["now"]
    again.write(path)
    third = continue_report(path, {**SETTINGS, "created": "later"}, planned)
    assert third.context["continued"] == ["now", "later"] and third.episodes == report.episodes
    # More episodes of the same plan begin with those that are there.
    more = plan_episodes(SETTINGS["tasks"], len(planned) + 8, SETTINGS["seed"])
    assert continue_report(path, dict(SETTINGS), more).episodes == report.episodes


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 5}, "seed is 4 there, 5 now"),
        ({"model": {"name": "ptr", "sha256": "cd34"}}, "model.sha256 is 'ab12' there, 'cd34' now"),
        ({"launch_arguments": {"arm": "emulated", "rate_hz": None}}, "launch_arguments.arm"),
        ({"rtf": 0.5}, "rtf is 1.0 there, 0.5 now"),
        ({"tasks": ["b", "a"]}, "tasks is"),
        ({"versions": {"python": "3.14"}}, "versions.python"),
    ],
)
def test_a_report_of_another_run_is_refused_by_the_difference(tmp_path, change, named):
    path = tmp_path / "report.json"
    _, planned = interrupted_run(path, 1)
    written = path.read_text()
    with pytest.raises(ReportError) as error:
        continue_report(path, {**SETTINGS, **change}, planned)
    assert named in str(error.value) and str(path) in str(error.value)
    assert path.read_text() == written


def test_a_report_with_other_or_more_episodes_is_refused(tmp_path):
    path = tmp_path / "report.json"
    _, planned = interrupted_run(path, 2)
    with pytest.raises(ReportError, match="are asked for now"):
        continue_report(path, dict(SETTINGS), [])
    with pytest.raises(ReportError, match="with seed"):
        continue_report(path, dict(SETTINGS), planned[1:] + planned)


@pytest.mark.parametrize(
    "text", ["", "not JSON", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 2}']
)
def test_a_file_that_is_no_report_is_not_overwritten(tmp_path, text):
    path = tmp_path / "notes.json"
    path.write_text(text)
    with pytest.raises(ReportError, match="move that file away"):
        continue_report(path, dict(SETTINGS), [])
    assert path.read_text() == text
