"""A benchmark that somebody runs again leaves the committed results alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[3] / "bench"
SCRIPTS = sorted(BENCH.glob("*.py"))
RESULT_FILES = BENCH / "result_files.py"


@pytest.fixture
def result_files(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import result_files

    return result_files


def test_results_go_beside_the_committed_ones_unless_asked(result_files, monkeypatch, tmp_path):
    monkeypatch.setattr(result_files, "ROOT", tmp_path)
    monkeypatch.setattr(result_files, "COMMITTED", tmp_path / "bench" / "results")
    monkeypatch.setattr(result_files, "OWN", tmp_path / "runs" / "bench")
    own = result_files.write_result("a.json", "1", update=False)
    assert own == tmp_path / "runs" / "bench" / "a.json"
    assert not (tmp_path / "bench").exists()
    committed = result_files.write_result("a.json", "2", update=True)
    assert (own.read_text(), committed.read_text()) == ("1", "2")


def test_git_ignores_where_they_go(result_files):
    file = result_files.OWN / "a.json"
    done = subprocess.run(["git", "check-ignore", "-q", str(file)], cwd=BENCH, check=False)
    assert done.returncode == 0
    assert result_files.COMMITTED == BENCH / "results"


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s != RESULT_FILES], ids=lambda s: s.name)
def test_every_script_writes_through_the_one_place(script):
    calls = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Call)]
    names = [node.func.id for node in calls if isinstance(node.func, ast.Name)]
    assert "add_results_option" in names
    assert "write_result" in names
    assert "bench/results" not in script.read_text()
    assert '"results"' not in script.read_text()


@pytest.mark.parametrize("script", ["policy_tick.py", "gnm_tick.py", "image_transport.py"])
def test_help_tells_the_option(script):
    done = subprocess.run(
        [sys.executable, str(BENCH / script), "--help"], capture_output=True, text=True, check=True
    )
    assert "--update-results" in done.stdout
    assert "runs/bench" in done.stdout
