from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.training

from policy_training.evaluate import summarise, wilson_interval  # noqa: E402


def test_wilson_interval_against_published_values():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    for successes, trials, low, high in [(81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611)]:
        found = wilson_interval(successes, trials)
        assert found == pytest.approx((low, high), abs=1e-4)


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
