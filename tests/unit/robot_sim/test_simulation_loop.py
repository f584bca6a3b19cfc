import threading
import time

import numpy as np
import pytest
from robot_sim import simulation_loop
from robot_sim.physics_loop import DRAWING_S
from robot_sim.simulation_loop import CYCLE_S, SimulationLoop
from robot_sim.tasks import find_task

IMAGES = 6


class SlowRenderer:
    """Draws as a computer does that is busy with something else."""

    draw_s = 0.1

    def __init__(self, _model):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, _data):
        pass

    def draw(self):
        time.sleep(self.draw_s)
        return np.zeros((2, 2, 3), np.uint8)


def ages_of_images(rtf, wait_for_camera):
    """Simulated age of some images when they are handed out [s], and how many were skipped."""
    now_s = 0.0
    ages_s = []
    enough = threading.Event()

    def on_cycle(state):
        nonlocal now_s
        now_s = state.time_s

    def on_image(time_s, _wall_ns, _pixels):
        ages_s.append(now_s - time_s)
        if len(ages_s) == IMAGES:
            enough.set()

    failures = []
    loop = SimulationLoop(
        find_task("open_drawer"),
        3,
        rtf,
        30.0,
        on_cycle,
        on_image,
        failures.append,
        wait_for_camera=wait_for_camera,
    )
    loop.start()
    try:
        assert enough.wait(30.0) and not failures
    finally:
        loop.stop()
    return ages_s[:IMAGES], loop.frames_skipped


@pytest.mark.parametrize("rtf", [1.0, 3.0])
def test_time_waits_for_a_slow_camera(monkeypatch, rtf):
    monkeypatch.setattr(simulation_loop, "CameraRenderer", SlowRenderer)
    ages_s, skipped = ages_of_images(rtf, wait_for_camera=True)
    assert skipped == 0 and max(ages_s) <= DRAWING_S + CYCLE_S + 1e-9


def test_without_waiting_a_slow_camera_loses_images_and_says_how_many(monkeypatch):
    monkeypatch.setattr(simulation_loop, "CameraRenderer", SlowRenderer)
    _, skipped = ages_of_images(1.0, wait_for_camera=False)
    assert skipped > 0
