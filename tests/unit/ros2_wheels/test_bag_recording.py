"""What a recorder notices of a topic that falls silent."""

import pytest
from ros2_wheels.bag_recording import TopicTimes


@pytest.mark.parametrize(
    ("stamps_s", "told_at_s"),
    [
        ([i / 30 for i in range(60)], 59 / 30 + 5.0),  # a camera
        ([2.0 * i for i in range(12)], 22.0 + 10.0),  # slow, and that is its rhythm
        ([0.0, 0.1, 60.0, *(60.1 + i * 0.1 for i in range(9))], 60.9 + 5 * 59.9),  # now and then
        ([0.0, 0.1, 0.2], None),  # too few to know
        ([], None),
    ],
)
def test_a_topic_that_stops_is_told_once_in_each_silence(stamps_s, told_at_s):
    times = TopicTimes()
    for stamp_s in stamps_s:
        times.add(stamp_s)
    end_s = stamps_s[-1] if stamps_s else 0.0
    told_s = [now_s for i in range(9000) if times.has_stopped(now_s := end_s + i * 0.1)]
    assert told_s == ([] if told_at_s is None else pytest.approx([told_at_s], abs=0.11))
    if told_at_s is not None:
        times.add(end_s + 900.0)  # it is back, and silent again
        assert times.has_stopped(end_s + 900.0 + 5001.0)
