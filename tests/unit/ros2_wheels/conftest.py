import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from launch_runs import LaunchRun


@pytest.fixture
def start_launch(tmp_path):
    runs = []

    def start(source, *arguments):
        runs.append(LaunchRun(tmp_path, source, *arguments))
        return runs[-1]

    yield start
    for run in runs:
        run.kill_all()
