import math

import pytest
from episode_tools.success_rate import SuccessRate, wilson_interval
from hypothesis import given
from hypothesis import strategies as st


# Reference values: R 4.3, binom::binom.confint(x, n, methods = "wilson").
@pytest.mark.parametrize(
    ("successes", "trials", "lower", "upper"),
    [
        (0, 10, 0.0, 0.27753279),
        (5, 10, 0.23659309, 0.76340691),
        (42, 50, 0.71485992, 0.91663079),
        (10, 10, 0.72246721, 1.0),
    ],
)
def test_known_intervals(successes, trials, lower, upper):
    assert wilson_interval(successes, trials) == pytest.approx((lower, upper), abs=5e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_bounds_solve_the_score_equation(counts):
    # Each inner bound p satisfies |rate - p| = z sqrt(p (1 - p) / n), the definition.
    successes, trials = counts
    rate = successes / trials
    for bound in wilson_interval(successes, trials):
        assert 0.0 <= bound <= 1.0
        if 0.0 < bound < 1.0:
            score = abs(rate - bound) / math.sqrt(bound * (1 - bound) / trials)
            assert score == pytest.approx(1.959963984540054, rel=1e-6)


def test_unjudged_episodes_are_not_trials():
    rate = SuccessRate()
    for outcome in (True, None, False, None):
        rate = rate.with_outcome(outcome)
    assert (rate.successes, rate.trials, rate.unknown, rate.rate) == (1, 2, 2, 0.5)
    assert SuccessRate(unknown=3).rate is None


def test_refuses_impossible_counts():
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(3, 2)
