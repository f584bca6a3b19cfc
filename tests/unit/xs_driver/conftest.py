"""Fixtures: an emulated arm, with and without the timing of a real bus."""

import sys
from pathlib import Path

import pytest
from servo_bus_emulator.bus import BusTiming

sys.path.insert(0, str(Path(__file__).parent))

from emulated_arm import Arm


@pytest.fixture(autouse=True)
def quick_thread_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def arm(tmp_path):
    arm = Arm(tmp_path)
    yield arm
    arm.close()


@pytest.fixture
def timed_arm(tmp_path):
    arm = Arm(tmp_path, timing=BusTiming())
    yield arm
    arm.close()


@pytest.fixture
def make_arm(tmp_path):
    made = []

    def make(**settings):
        made.append(Arm(tmp_path, **settings))
        return made[-1]

    yield make
    for arm in made:
        arm.close()
