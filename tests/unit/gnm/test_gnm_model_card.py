"""The card of a navigation bundle says what was measured."""

import json

import pytest
import yaml
from policy_training.gnm.model_card import ModelCardError, main, model_card, read_trials

FIGURES = dict.fromkeys(
    (
        "distance_mae",
        "near_distance_mae",
        "ranking",
        "rejection",
        "waypoint_error",
        "direction_error_deg",
        "recall_at_5",
    ),
    0.5,
)


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "match.onnx").write_bytes(bytes(2_500_000))
    deployment = {
        "policy": {"licence": "Apache-2.0", "trained_on": "drives"},
        "control": {"rate_hz": 4.0, "horizon": 5},
        "observations": [{"size": [85, 64], "history": 6}],
        "navigation": {"distance": "match/distance", "max_distance_steps": 20.0},
        "action": {"tensor": "match/waypoints", "names": ["x", "y"]},
        "files": {"match.onnx": ""},
        "validation": {"passes": 5, "max_abs_error": 2e-6},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump({"deployment": deployment}))
    return folder


def _trial(robot, success):
    return {"robot": robot, "success": success, "driven_m": 20.0, "collisions": 1}


def _report(path, robot, wins, total, key="trials"):
    records = [_trial(robot, index < wins) for index in range(total)]
    path.write_text(json.dumps({key: records, "command": f"drive {robot}"}))
    return path


def test_robots_out_of_training_are_marked_and_summed_apart(bundle, tmp_path):
    files = [
        _report(tmp_path / "a.json", "locobot", 9, 10),
        _report(tmp_path / "b.json", "quadrotor", 3, 4, "records"),
    ]
    card = model_card(bundle, [], {}, [read_trials("shipped", files)], "")
    assert "| locobot | 90 % (9/10; 60–98), 50/km |" in card
    assert "| quadrotor* | 75 % (3/4; 30–95), 50/km |" in card
    assert "| **held out** | 75 % (3/4; 30–95), 50/km |" in card
    assert "- shipped: `drive quadrotor`" in card
    assert "2.5 MB" in card


def test_recovery_counts_kidnapped_and_blocked_trials_apart(bundle, tmp_path):
    records = [
        _trial("go2", True) | {"task": "kidnapped", "replans": 0, "relocalised": True},
        _trial("go2", False) | {"task": "kidnapped", "replans": 1, "relocalised": False},
        # It was lost before it could be put elsewhere.
        _trial("go2", False) | {"task": "kidnapped", "replans": 0, "relocalised": None},
        _trial("locobot", True) | {"task": "blocked", "replans": 2, "relocalised": None},
    ]
    file = tmp_path / "hard.json"
    file.write_text(json.dumps({"trials": records, "command": "drive"}))
    card = model_card(bundle, [], {}, [], "", [read_trials("shipped", [file])])
    half, none, one = "50 % (1/2; 9–91)", "–", "100 % (1/1; 21–100)"
    assert f"| go2* | {half} | {half} | {none} | {none} |" in card
    assert f"| locobot | {none} | {none} | {one} | {one} |" in card
    assert f"| **all** | {half} | {half} | {one} | {one} |" in card


def test_steps_logged_twice_by_a_continued_run_count_once(bundle, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    record = {"command": "train", "threads": 1, "torch": "2", "pairs_per_step": 100}
    (run / "run.json").write_text(json.dumps(record))
    rows = [(100, 9.0), (200, 9.0), (100, 3.0), (200, 2.0), (300, 1.0)]
    lines = [json.dumps({"step": s, "loss": v, "place_loss": v, "step_ms": 600}) for s, v in rows]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    card = model_card(bundle, [run], {}, [], "")
    assert "300 steps, 0.03 million pairs of observation and goal, 3 minutes" in card


def test_command_line_writes_the_card_and_refuses_other_files(bundle, tmp_path, capsys):
    offline = tmp_path / "offline.json"
    robots = {"go2": FIGURES, "locobot": FIGURES}
    offline.write_text(json.dumps({"robots": robots, "command": "measure"}))
    out = tmp_path / "README.md"
    arguments = ["--bundle", str(bundle), "--offline", f"own={offline}", "--out", str(out)]
    assert main(arguments) == 0
    assert "| own | go2* | 0.50 |" in out.read_text()
    assert main([*arguments, "--trials", f"x={offline}"]) == 1
    assert "neither 'trials' nor 'records'" in capsys.readouterr().err
    with pytest.raises(ModelCardError):
        read_trials("x", [offline])
