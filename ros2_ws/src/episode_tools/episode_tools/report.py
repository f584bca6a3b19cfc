"""The result of a run: one line per episode, a closing table, and a JSON file."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from episode_tools.success_rate import SuccessRate

SCHEMA_VERSION = 1
_VERSIONED_DISTRIBUTIONS = (
    "numpy",
    "onnxruntime",
    "mujoco",
    "ros-rclpy",
    "ros-rmw-fastrtps-cpp",
)


class ReportError(OSError):
    """The report cannot be written; the message names the path and the cause."""


@dataclass(frozen=True)
class EpisodeRecord:
    """What happened in one episode.

    Attributes:
        task: task name.
        trial: how many episodes of the same task came before it.
        seed: scene seed.
        success: None when nobody judged it.
        success_time_s: when the success began, from the start of the episode [s]; None without.
        termination: why the policy stopped, e.g. `horizon`, `cancelled`.
        steps: policy steps that were run.
        missed_ticks: steps that came late or had no fresh observation.
        duration_s: time the policy ran [s].
        rate_hz: achieved policy rate [Hz].
        inference_p50_ms: median inference time [ms].
        inference_p95_ms: 95th percentile [ms].
        inference_p99_ms: 99th percentile [ms].
    """

    task: str
    trial: int
    seed: int
    success: bool | None
    success_time_s: float | None
    termination: str
    steps: int
    missed_ticks: int
    duration_s: float
    rate_hz: float
    inference_p50_ms: float
    inference_p95_ms: float
    inference_p99_ms: float


@dataclass
class Report:
    """Everything that a reader needs to repeat a run and to judge its result.

    Attributes:
        context: what was run: command, model, seed, rates, versions (JSON types only).
        episodes: in the order in which they were run.
        complete: all episodes asked for were run.
        error: why not, when not.
    """

    context: dict[str, Any]
    episodes: list[EpisodeRecord] = field(default_factory=list)
    complete: bool = False
    error: str = ""

    def rates(self) -> dict[str, SuccessRate]:
        """Success rate of each task, in the order of first appearance."""
        rates: dict[str, SuccessRate] = {}
        for episode in self.episodes:
            rates[episode.task] = rates.get(episode.task, SuccessRate()).with_outcome(
                episode.success
            )
        return rates

    def overall(self) -> SuccessRate:
        """Success rate over all episodes."""
        rate = SuccessRate()
        for episode in self.episodes:
            rate = rate.with_outcome(episode.success)
        return rate

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types; numbers that are not finite become None."""
        return {
            "schema_version": SCHEMA_VERSION,
            "complete": self.complete,
            "error": self.error,
            **self.context,
            "summary": {
                "overall": _rate_dict(self.overall()),
                "mean_task_rate": _mean_rate(self.rates().values()),
                "missed_ticks": sum(episode.missed_ticks for episode in self.episodes),
                "tasks": {task: _rate_dict(rate) for task, rate in self.rates().items()},
            },
            "episodes": [
                {key: _finite(value) for key, value in asdict(episode).items()}
                for episode in self.episodes
            ],
        }

    def write(self, path: Path) -> None:
        """Write the JSON file; a reader sees the old file or the new one, never a part.

        Raises:
            ReportError: the file cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        try:
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
                Path(temporary).chmod(0o644)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ReportError(f"cannot write the report {path}: {error}") from error


def prepare_report_path(path: Path) -> None:
    """Make sure, before a robot moves, that a report can be written to `path`.

    Raises:
        ReportError: it cannot.
    """
    if path.is_dir():
        raise ReportError(f"report is '{path}', a directory; give the path of a JSON file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"cannot make the folder of the report {path}: {error}") from error
    if not os.access(path.parent, os.W_OK):
        raise ReportError(f"cannot write the report {path}: no permission in {path.parent}")


def episode_line(number: int, total: int, record: EpisodeRecord) -> str:
    """One line about an episode."""
    verdict = {True: "success", False: "failure", None: "unknown"}[record.success]
    return (
        f"episode {number:>{len(str(total))}}/{total}  {record.task:<28} seed {record.seed}  "
        f"{verdict:<7}  steps {record.steps:>3}  "
        f"inference p50 {_ms(record.inference_p50_ms)} p95 {_ms(record.inference_p95_ms)} ms  "
        f"misses {record.missed_ticks}"
    )


def closing_table(report: Report) -> list[str]:
    """Lines of the table that closes a run: each task and all together."""
    rates = report.rates()
    rows = [(task, rate) for task, rate in rates.items()]
    rows.append(("all", report.overall()))
    width = max(len(name) for name, _ in rows)
    lines = [f"{'task':<{width}}  successes/trials    rate  95 % interval"]
    for name, rate in rows:
        if name == "all":
            lines.append("-" * len(lines[0]))
        low, high = rate.interval
        share = "unknown" if rate.rate is None else f"{100 * rate.rate:5.1f} %"
        interval = "" if rate.rate is None else f"{100 * low:.0f} .. {100 * high:.0f} %"
        unknown = f"  ({rate.unknown} not judged)" if rate.unknown else ""
        count = f"{rate.successes}/{rate.trials}"
        lines.append(f"{name:<{width}}  {count:>16}  {share:>7}  {interval}{unknown}".rstrip())
    return lines


def bundle_identity(model: str) -> dict[str, str]:
    """Name and hash of a policy bundle.

    The hash is that of the bundle's YAML file, which itself names the SHA-256 of every other file.
    Both are empty when `model` is.

    Raises:
        ReportError: the directory has not exactly one YAML file.
    """
    if not model:
        return {"name": "", "sha256": ""}
    directory = Path(model)
    documents = sorted(directory.glob("*.yaml"))
    if len(documents) != 1:
        found = ", ".join(document.name for document in documents) or "none"
        raise ReportError(
            f"model '{model}': expected a bundle directory with one .yaml file, found {found}"
        )
    digest = hashlib.sha256(documents[0].read_bytes()).hexdigest()
    return {"name": directory.name, "sha256": digest}


def software_versions() -> dict[str, str]:
    """Versions of what a result depends on; absent distributions are left out."""
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _VERSIONED_DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "ROS_DISTRO" in os.environ:
        versions["ros_distro"] = os.environ["ROS_DISTRO"]
    return versions


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _ms(value: float) -> str:
    return f"{value:5.1f}" if math.isfinite(value) else "    -"


def _mean_rate(rates: Sequence[SuccessRate] | Any) -> float | None:
    known = [rate.rate for rate in rates if rate.rate is not None]
    return sum(known) / len(known) if known else None


def _rate_dict(rate: SuccessRate) -> dict[str, Any]:
    low, high = rate.interval
    return {
        "successes": rate.successes,
        "trials": rate.trials,
        "unknown": rate.unknown,
        "rate": rate.rate,
        "wilson_95": [low, high],
    }
