from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.training

from policy_training.evaluate import summarise  # noqa: E402


def test_summary_counts_tasks_equally_and_lists_failures():
    report = summarise(
        {
            "a": [{"seed": s, "success": s != 2, "steps": 10} for s in range(4)],
            "b": [{"seed": s, "success": False, "steps": 40} for s in range(2)],
        }
    )
    assert report["success_rate"] == pytest.approx(0.375)
    assert report["tasks"]["a"]["failed"] == [2]
    assert report["tasks"]["b"]["mean_steps"] is None
