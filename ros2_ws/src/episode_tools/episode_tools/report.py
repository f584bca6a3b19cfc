"""The result of a run: one line per episode, a closing table, and a JSON file."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from episode_tools.episode_plan import PlannedEpisode
from episode_tools.success_rate import SuccessRate

SCHEMA_VERSION = 2
_VERSIONED_DISTRIBUTIONS = (
    "numpy",
    "onnxruntime",
    "mujoco",
    "ros-rclpy",
    "ros-rmw-fastrtps-cpp",
)


_SETTINGS = (
    "policy",
    "model",
    "simulated",
    "rtf",
    "simulated_clock",
    "seed",
    "tasks",
    "max_steps",
    "success_hold_s",
    "settle_s",
    "launch_arguments",
    "versions",
)
"""What decides a result: a run goes on with a report only where all of it is the same."""

FEW_TRIALS = 30
"""Below so many trials the closing table says that they are few."""


class ReportError(OSError):
    """The report cannot be written or continued; the message names the path and the cause."""


@dataclass(frozen=True)
class EpisodeRecord:
    """What happened in one attempt at an episode.

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
        attempt: 1 for the first at this episode.
        spoiled_by: why it is no trial; empty for a trial.
        counters: faults that nodes counted meanwhile.
        observation_age_p50_ms: median age of the observations that caused commands [ms].
        observation_age_max_ms: the greatest [ms].
        real_time_factor: time that passed on the clock of the nodes, per real time.
        cpu_percent: use of all cores at its end [%].
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
    attempt: int = 1
    spoiled_by: tuple[str, ...] = ()
    counters: dict[str, float] = field(default_factory=dict)
    observation_age_p50_ms: float = math.nan
    observation_age_max_ms: float = math.nan
    real_time_factor: float = math.nan
    cpu_percent: float = math.nan

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> EpisodeRecord:
        """Read what `Report.to_dict` wrote.

        Raises:
            KeyError, TypeError: it is no such thing.
        """
        values = {name.name: row[name.name] for name in fields(cls)}
        for name in cls._MEASURED:
            values[name] = math.nan if values[name] is None else float(values[name])
        values["spoiled_by"] = tuple(values["spoiled_by"])
        return cls(**values)

    _MEASURED: ClassVar[tuple[str, ...]] = (
        "rate_hz",
        "inference_p50_ms",
        "inference_p95_ms",
        "inference_p99_ms",
        "observation_age_p50_ms",
        "observation_age_max_ms",
        "real_time_factor",
        "cpu_percent",
    )


@dataclass
class Report:
    """Everything that a reader needs to repeat a run and to judge its result.

    Attributes:
        context: what was run: command, model, seed, rates, versions (JSON types only).
        episodes: the trials, in the order in which they were run.
        spoiled: attempts that were no trials; each was repeated, or ended the run.
        complete: all episodes asked for were run.
        error: why not, when not.
    """

    context: dict[str, Any]
    episodes: list[EpisodeRecord] = field(default_factory=list)
    spoiled: list[EpisodeRecord] = field(default_factory=list)
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

    @property
    def real_time_factor(self) -> float | None:
        """Simulated time per real time over all trials; None when it was not measured."""
        timed = [e for e in self.episodes if e.real_time_factor > 0.0]
        real_s = sum(e.duration_s / e.real_time_factor for e in timed)
        return sum(e.duration_s for e in timed) / real_s if real_s > 0.0 else None

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
                "attempts": len(self.episodes) + len(self.spoiled),
                "spoiled_attempts": len(self.spoiled),
                "real_time_factor": self.real_time_factor,
                "tasks": {task: _rate_dict(rate) for task, rate in self.rates().items()},
            },
            "episodes": [_record_dict(record) for record in self.episodes],
            "spoiled_attempts": [_record_dict(record) for record in self.spoiled],
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


def continue_report(
    path: Path, context: dict[str, Any], planned: Sequence[PlannedEpisode]
) -> Report:
    """The report to go on with: the one at `path` if there is one, otherwise an empty one.

    Args:
        path: of the JSON file.
        context: of the run that begins.
        planned: its episodes.

    Raises:
        ReportError: the file is no report, or one of a run with other settings.
    """
    if not path.exists():
        return Report(context=context)
    advice = "give another report:=, or move that file away to begin anew"
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        version = written["schema_version"]
        if version != SCHEMA_VERSION:
            raise ReportError(
                f"the report {path} exists and has format {version}; this program continues "
                f"reports of format {SCHEMA_VERSION}: {advice}"
            )
        episodes, spoiled = (
            [EpisodeRecord.from_dict(row) for row in written[key]]
            for key in ("episodes", "spoiled_attempts")
        )
    except OSError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(
            f"{path} exists and is not a report that can be continued ({error!r}): {advice}"
        ) from error
    wanted = json.loads(json.dumps(context))
    differences = [
        line for key in _SETTINGS for line in _differences(key, written.get(key), wanted.get(key))
    ]
    for record, plan in zip(episodes, planned, strict=False):
        if (record.task, record.trial, record.seed) != (plan.task, plan.trial, plan.seed):
            differences.append(
                f"episode of {record.task} with seed {record.seed} there, "
                f"of {plan.task} with seed {plan.seed} now"
            )
            break
    if len(episodes) > len(planned):
        differences.append(f"{len(episodes)} episodes are in it, {len(planned)} are asked for now")
    if differences:
        raise ReportError(
            f"the report {path} is of another run: {'; '.join(differences)}. {advice.capitalize()}"
        )
    context = {**context, "created": written.get("created"), "command": written.get("command")}
    context["continued"] = [*written.get("continued", []), wanted.get("created")]
    return Report(context=context, episodes=episodes, spoiled=spoiled)


def _differences(name: str, there: Any, now: Any) -> list[str]:
    if isinstance(there, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted(there.keys() | now.keys())
            for line in _differences(f"{name}.{key}", there.get(key), now.get(key))
        ]
    return [] if there == now else [f"{name} is {there!r} there, {now!r} now"]


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
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ReportError(f"cannot write the report {path}: {error}") from error


def episode_line(number: int, total: int, record: EpisodeRecord) -> str:
    """One line about an episode."""
    verdict = {True: "success", False: "failure", None: "unknown"}[record.success]
    return (
        f"episode {number:>{len(str(total))}}/{total}  {record.task:<28} seed {record.seed}  "
        f"{verdict:<7}  steps {record.steps:>3}  "
        f"inference p50 {_ms(record.inference_p50_ms)} p95 {_ms(record.inference_p95_ms)} ms"
        + (f"  attempt {record.attempt}" if record.attempt > 1 else "")
    )


def spoiled_line(number: int, total: int, record: EpisodeRecord) -> str:
    """One line about an attempt that is no trial."""
    return (
        f"episode {number:>{len(str(total))}}/{total}  {record.task:<28} seed {record.seed}  "
        f"no trial, attempt {record.attempt}: {'; '.join(record.spoiled_by)}"
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
    factor = report.real_time_factor
    if report.context.get("simulated_clock") and factor is not None:
        rtf = report.context.get("rtf", 1.0)
        lines.append(f"simulated at {factor:.2f} times real time, {rtf:g} at most (rtf:={rtf:g})")
    attempts = len(report.episodes) + len(report.spoiled)
    if report.spoiled:
        lines.append(
            f"{len(report.spoiled)} of {attempts} attempts were spoiled by the computer or the arm "
            "controller, and are no trials"
        )
    trials = report.overall().trials
    if 0 < trials < FEW_TRIALS:
        lines.append(
            f"{trials} trial{'s say' if trials > 1 else ' says'} little: the true rate may lie "
            "anywhere in the interval"
        )
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


def _record_dict(record: EpisodeRecord) -> dict[str, Any]:
    return {key: _finite(value) for key, value in asdict(record).items()}


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
