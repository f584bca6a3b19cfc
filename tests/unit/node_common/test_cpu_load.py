import pytest
from node_common.cpu_load import CpuLoad


class Machine:
    """A computer whose use is told in advance."""

    def __init__(self, *percents):
        self.percents = list(percents)
        self.time_s = 0.0

    def cpu_percent(self):
        return self.percents.pop(0)

    def load(self):
        return CpuLoad(self.cpu_percent, lambda: 7.25, lambda: self.time_s)


@pytest.mark.parametrize(
    ("percents", "busy"),
    [((100.0, 99.0, 98.0), True), ((40.0, 30.0, 20.0), False), ((100.0, 95.0, 20.0), False)],
)
def test_what_is_late_is_put_down_to_load_only_where_there_is_load(percents, busy):
    machine = Machine(77.0, *percents)
    load = machine.load()
    for _ in percents:
        machine.time_s += 1.0
        load.sample()
    assert load.cpu_percent == pytest.approx(sum(percents) / 3)
    assert load.busy == busy and bool(load.note) == busy
    if busy:
        assert f"CPU {sum(percents) / 3:.0f} %" in load.note and "load average 7.2" in load.note


def test_samples_close_together_count_once_and_the_first_value_means_nothing():
    machine = Machine(100.0, 12.0)
    load = machine.load()
    assert load.cpu_percent == 0.0 and not load.note
    machine.time_s = 1.0
    for _ in range(5):
        load.sample()
    assert load.cpu_percent == 12.0


def test_the_computer_itself_is_read():
    load = CpuLoad()
    assert 0.0 <= load.cpu_percent <= 100.0 and "load average" in load.figures
