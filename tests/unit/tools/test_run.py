"""`./run` before it makes anything: paths, commands, what the build of a package depends on."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
AT_ONCE_S = 2.0


def clone_at(directory):
    directory.mkdir(parents=True)
    shutil.copy(ROOT / "run", directory)
    return directory / "run"


def call(run, *arguments, **environment):
    return subprocess.run(
        [run, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30.0,
    )


@pytest.mark.parametrize(
    "name", ["a:b", "a;b", "it's", "a#b", "(1)", "ü", "a&b", "50%", "a\nb", "$x"]
)
def test_a_path_that_ros_cannot_be_built_in_is_refused_at_once(tmp_path, name):
    started_s = time.monotonic()
    result = call(clone_at(tmp_path / name), "setup")
    assert result.returncode == 1 and time.monotonic() - started_s < AT_ONCE_S
    assert "the path of this clone is" in result.stderr and "move the clone" in result.stderr
    assert not (tmp_path / name / ".venv").exists()


@pytest.mark.parametrize("name", ["plain", "with a blank", "a@b+c~d-e_f.g"])
def test_other_paths_are_not(tmp_path, name):
    assert "path of this clone" not in call(clone_at(tmp_path / name), "foo").stderr


@pytest.mark.parametrize(
    ("word", "nearest"), [("tets", "test"), ("rso2", "ros2"), ("setpu", "setup"), ("xyzzy", None)]
)
def test_an_unknown_command_is_refused_before_anything_is_made(tmp_path, word, nearest):
    run = clone_at(tmp_path / "clone")
    result = call(run, word)
    assert result.returncode == 1 and f"'{word}' is no command" in result.stderr
    assert ("did you mean" in result.stderr) == (nearest is not None)
    assert nearest is None or f"'./run {nearest}'" in result.stderr
    assert not (run.parent / ".venv").exists()


def test_a_clone_that_cannot_be_written_says_what_to_do(tmp_path):
    run = clone_at(tmp_path / "clone")
    # Taken for the lock, it stands for every reason why the clone cannot be written.
    (run.parent / ".run.lock").mkdir()
    result = call(run, "setup")
    assert result.returncode == 1
    assert "cannot be written" in result.stderr and "./run setup" in result.stderr
    assert "make a copy of your own: mkdir" in result.stderr


def test_a_python_that_is_none_is_named(tmp_path):
    result = call(clone_at(tmp_path / "clone"), "setup", COXSWAIN_PYTHON="/no/such/python")
    assert result.returncode == 1
    assert "COXSWAIN_PYTHON is '/no/such/python'" in result.stderr


def call_function(directory, line):
    """Run a line of bash with the functions of `./run` known; what it prints."""
    script = directory / "functions.sh"
    functions = (ROOT / "run").read_text().removesuffix('main "$@"\n')
    script.write_text(f"{functions}\nroot=/clone\n{line}\n")
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def digest(package):
    """What `./run` decides by whether a package is built anew."""
    text = call_function(package.parent, f"package_digest {package}")
    assert len(text.strip()) == 16, text
    return text


@pytest.fixture
def package(tmp_path):
    directory = tmp_path / "my_robot"
    for name, text in {
        "package.xml": "<package/>",
        "setup.py": "setup()",
        "my_robot/__init__.py": "",
        "launch/robot.launch.py": "",
        "msg/State.msg": "float64 x",
    }.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


@pytest.mark.parametrize(
    ("name", "text", "rebuilt"),
    [
        ("package.xml", "<package>new</package>", True),
        ("setup.py", "setup(new)", True),
        ("msg/State.msg", "float64 y", True),
        ("msg/Other.msg", "float64 y", True),
        ("launch/other.launch.py", "", True),
        ("launch/robot.launch.py", "changed", False),
        ("my_robot/new_module.py", "", False),
        ("my_robot/data.txt", "", False),
        ("README.md", "", False),
        ("my_robot/__pycache__/x.pyc", "", False),
    ],
)
def test_only_what_shapes_the_build_of_a_package_builds_it_anew(package, name, text, rebuilt):
    before = digest(package)
    (package / name).parent.mkdir(exist_ok=True)
    (package / name).write_text(text)
    assert (digest(package) != before) == rebuilt


def test_interfaces_that_the_environment_has_are_not_built(tmp_path):
    prefix = tmp_path / "with a blank"
    (prefix / "share" / "tf2_msgs").mkdir(parents=True)
    (prefix / "share" / "tf2_msgs" / "package.xml").touch()
    (tmp_path / "src" / "compat" / "tf2_msgs").mkdir(parents=True)
    (tmp_path / "src" / "compat" / "unitree_go").mkdir()
    line = f"workspace={tmp_path}; AMENT_PREFIX_PATH='/other:{prefix}' present_compat_packages"
    assert call_function(tmp_path, line) == "tf2_msgs\n"


def test_files_that_are_gone_leave_no_links_that_break_the_next_build(tmp_path):
    config = tmp_path / "build" / "arm" / "config"
    config.mkdir(parents=True)
    (tmp_path / "there.yaml").touch()
    (config / "there.yaml").symlink_to(tmp_path / "there.yaml")
    (config / "gone.yaml").symlink_to(tmp_path / "gone.yaml")
    call_function(tmp_path, f"workspace='{tmp_path}'; drop_dead_links arm; drop_dead_links base")
    assert [path.name for path in config.iterdir()] == ["there.yaml"]


def test_colcon_is_shown_as_a_count(tmp_path):
    log = tmp_path / "colcon.txt"
    failed = "Failed   <<< gnm_nav [0.1s, exited with code 1]"
    log.write_text(
        "Starting >>> policy_interfaces\nFinished <<< policy_interfaces [3.2s]\n"
        f"Starting >>> gnm_nav\n{failed}\nSummary: 1 package finished\n"
    )
    shown = call_function(tmp_path, f"show_progress 18 <{log}").splitlines()
    texts = [line.partition("] ")[2].strip() for line in shown]
    assert texts == ["1 of 18: policy_interfaces", "2 of 18: gnm_nav", failed]
