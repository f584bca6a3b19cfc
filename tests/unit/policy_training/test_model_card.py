from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.training

from policy_training.model_card import ModelCardError, read_measurement  # noqa: E402


def test_both_kinds_of_report_are_read(tmp_path):
    simulated = tmp_path / "a.json"
    simulated.write_text(
        json.dumps({"tasks": {"open_drawer": {"successes": 3, "episodes": 4}}, "command": "x"})
    )
    assert read_measurement("a", simulated).overall() == (3, 4)
    runner = tmp_path / "b.json"
    report = {
        "complete": True,
        "command": "ros2 launch",
        "error": "",
        "summary": {},
        "episodes": [
            {"task": "open_drawer", "success": True},
            {"task": "open_drawer", "success": None},
            {"task": "close_drawer", "success": True},
        ],
    }
    runner.write_text(json.dumps(report))
    assert read_measurement("b", runner).counts == {"open_drawer": (1, 2), "close_drawer": (1, 1)}
    assert read_measurement("both", simulated, runner).counts["open_drawer"] == (4, 6)
    runner.write_text(json.dumps(report | {"complete": False, "error": "arm lost"}))
    with pytest.raises(ModelCardError, match="arm lost"):
        read_measurement("b", runner)
