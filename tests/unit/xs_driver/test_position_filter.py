"""A damaged position with a right CRC is not believed; a fast joint is."""

from widowx_control.xs_driver.position_filter import PositionFilter


def test_one_wild_reading_is_dropped_and_a_confirmed_one_believed():
    positions = PositionFilter()
    assert not positions.accept(1, 2000, 0.00)  # the first needs a second
    assert positions.accept(1, 2001, 0.001)
    assert not positions.accept(1, 3000, 0.01)
    assert positions.accept(1, 2004, 0.02)
    assert positions.rejected == 1
    # A joint that really is elsewhere, as after being turned by hand while unread.
    assert not positions.accept(1, 3500, 0.03)
    assert positions.accept(1, 3502, 0.031)


def test_the_fastest_joint_passes_and_a_gap_widens_the_reach():
    positions = PositionFilter()
    positions.accept(1, 0, 0.0)
    assert positions.accept(1, 0, 0.001)
    ticks = 0
    for k in range(1, 50):
        ticks += 42  # 6.4 rad/s at 100 Hz
        assert positions.accept(1, ticks, k * 0.01)
    assert positions.accept(1, ticks + 2000, 0.49 + 0.5)
    positions.forget(1)
    assert not positions.accept(1, ticks, 1.0)
