"""Records of navigation trials, and what they come to."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from episode_tools.success_rate import wilson_interval

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TrialRecord:
    """One drive to a goal.

    Attributes:
        robot: name.
        world: kind.
        world_seed: of the world.
        trial: number within the world.
        task: `reach`, `kidnapped` or `blocked`.
        success: the navigator said that the goal is reached, the robot stood, and it was within
            the radius of the goal's true place.
        reason: of the action's result.
        message: of the action's result.
        way_m: length of the mapped way from the start to the goal.
        horizons: `way_m` in horizons of the network.
        away_m: true distance to the goal at the end.
        stopped: the robot stood at the end.
        driven_m: since the start.
        time_s: simulated time that the action took.
        collisions: contacts begun.
        replans: times that a part of the map was found blocked.
        nodes: of the map.
        relocalised: kidnapped only: the navigator knew its new place; else None.
        relocalised_s: kidnapped only: after so much simulated time; NaN: never.
    """

    robot: str
    world: str
    world_seed: int
    trial: int
    task: str
    success: bool
    reason: str
    message: str
    way_m: float
    horizons: float
    away_m: float
    stopped: bool
    driven_m: float
    time_s: float
    collisions: int
    replans: int
    nodes: int
    relocalised: bool | None = None
    relocalised_s: float = math.nan


def summary(records: Sequence[TrialRecord]) -> dict[str, Any]:
    """Success with its 95 % Wilson interval, collisions per kilometre, reasons of failure."""
    if not records:
        return {"trials": 0}
    successes = sum(record.success for record in records)
    driven_m = sum(record.driven_m for record in records)
    result: dict[str, Any] = {
        "trials": len(records),
        "worlds": len({(record.world, record.world_seed) for record in records}),
        "successes": successes,
        "success": round(successes / len(records), 4),
        "interval": [round(bound, 4) for bound in wilson_interval(successes, len(records))],
        "shortest_way_horizons": round(min(record.horizons for record in records), 2),
        "driven_m": round(driven_m, 1),
        "collisions": sum(record.collisions for record in records),
        "collisions_per_km": round(
            1000.0 * sum(record.collisions for record in records) / max(driven_m, 1e-9), 1
        ),
        "reasons": dict(Counter(r.reason for r in records if not r.success)),
    }
    moved = [record for record in records if record.relocalised is not None]
    if moved:
        found = sum(bool(record.relocalised) for record in moved)
        result["relocalised"] = round(found / len(moved), 4)
        result["relocalised_interval"] = [
            round(bound, 4) for bound in wilson_interval(found, len(moved))
        ]
    return result


def line(record: TrialRecord) -> str:
    """One line for people."""
    verdict = "reached" if record.success else f"FAILED ({record.reason})"
    text = (
        f"{record.robot}, {record.world} {record.world_seed}, trial {record.trial}: {verdict}, "
        f"{record.away_m:.2f} m from the goal after {record.driven_m:.1f} m "
        f"(way {record.way_m:.1f} m, {record.horizons:.1f} horizons) in {record.time_s:.0f} s, "
        f"{record.collisions} collisions"
    )
    if record.relocalised is not None:
        text += (
            f", found itself after {record.relocalised_s:.1f} s"
            if record.relocalised
            else ", did not find itself"
        )
    return text if record.success else f"{text}: {record.message}"


def write_report(path: Path, context: dict[str, Any], records: Sequence[TrialRecord]) -> None:
    """Write the report as JSON; the file is whole at any time."""
    document = {
        "schema_version": SCHEMA_VERSION,
        **context,
        "summary": summary(records),
        "trials": [_plain(asdict(record)) for record in records],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(path.suffix + ".part")
    beside.write_text(json.dumps(document, indent=1) + "\n")
    beside.replace(path)


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {
        key: (None if math.isnan(value) else round(value, 3)) if isinstance(value, float) else value
        for key, value in record.items()
    }
