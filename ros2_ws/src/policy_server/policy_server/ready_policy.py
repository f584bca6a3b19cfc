"""From a bundle and settings to a policy that fits the robot and is warmed up."""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from node_common.strict_yaml import BundleError

from policy_server.bundle import Bundle, find_bundle, load_bundle
from policy_server.deployment import ChunkSpec, Deployment
from policy_server.engine import EngineOptions, InferenceError, ProviderWarning
from policy_server.policy import Observation, Policy, UnknownTaskError, example_observation
from policy_server.registry import create_policy
from policy_server.robots import ActionSpace, check_robot, load_robot

WARM_UP_RUNS = 5
RATE_FACTOR = 2.0
"""A rate that differs from the bundle's by more than this factor is refused."""
_CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class PolicySettings:
    """What a user may say about how a bundle is run; empty and 0: as the bundle says.

    Attributes:
        model: path of a bundle, or its name.
        policy: kind in place of the bundle's.
        policy_parameters: of the kind, as YAML.
        robot: name or file of the connected robot.
        provider, threads: what computes.
        rate_hz: control rate.
        inference: one of `deployment.INFERENCE`.
        execute_steps: of a chunk.
        num_samples: chunks drawn per inference.
        task: name of the first task.
    """

    model: str
    policy: str
    policy_parameters: str
    robot: str
    provider: str
    threads: int
    rate_hz: float
    inference: str
    execute_steps: int
    num_samples: int
    task: str


@dataclass(frozen=True)
class ReadyPolicy:
    """A policy that can be run.

    Attributes:
        name: of the bundle.
        policy: it; `policy.spec` says what it observes and commands.
        rate_hz: control rate.
        chunk: how chunks are executed.
        sampling_problem: why `num_samples` must be 1; empty: it may be more.
    """

    name: str
    policy: Policy
    rate_hz: float
    chunk: ChunkSpec
    sampling_problem: str

    def close(self) -> None:
        """Give back what the policy holds."""
        _close(self.policy)


def prepare_policy(
    settings: PolicySettings,
    models: list[Path],
    tell: Callable[[str], object],
    warn: Callable[[str], object],
) -> ReadyPolicy:
    """Load and verify a bundle, make sure that it fits the robot, and warm it up.

    Args:
        settings: what the user says.
        models: directories with bundles.
        tell, warn: take what a user should know.

    Raises:
        BundleError: the bundle, its kind or the robot's file is wrong, or they do not fit.
        ValueError: a setting does not fit.
        InferenceError: a model cannot be run.
    """
    bundle = load_bundle(find_bundle(settings.model, models))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ProviderWarning)
        policy = create_policy(
            bundle,
            EngineOptions(settings.provider, settings.threads),
            settings.policy,
            _mapping(settings.policy_parameters),
        )
    for warning in caught:
        warn(str(warning.message))
    try:
        return _fit(settings, bundle, policy, tell, warn)
    except Exception:
        _close(policy)
        raise


def _fit(
    settings: PolicySettings,
    bundle: Bundle,
    policy: Policy,
    tell: Callable[[str], object],
    warn: Callable[[str], object],
) -> ReadyPolicy:
    # A wrapper sees and needs other things than the bundle's own kind.
    spec = policy.spec
    robot = load_robot(settings.robot)
    space = check_robot(bundle.file, spec, robot)
    for camera in spec.cameras:
        if not _CAMERA_NAME.fullmatch(camera.camera):
            field = f"deployment.observations {camera.name}.camera"
            raise BundleError(bundle.file, field, camera.camera, "a name of ROS, as wrist_camera")
    if settings.task and spec.tasks and settings.task not in spec.tasks:
        raise UnknownTaskError(settings.task, tuple(spec.tasks))
    rate_hz = _rate_hz(settings, spec, space, robot.name)
    if rate_hz != spec.rate_hz:
        warn(f"running at {rate_hz:g} Hz; the bundle was made for {spec.rate_hz:g} Hz")
    chunk = _chunk(settings, spec, rate_hz)
    observation = example_observation(spec, robot)
    duration_s = _warm_up(settings, bundle, policy, observation, chunk)
    sampling_problem = ""
    try:
        policy.infer(observation, 2)
    except InferenceError as error:
        sampling_problem = str(error)
    policy.reset(0)
    tell(
        f"{bundle.name}: {spec.policy.kind}, {spec.policy.algorithm}, {len(spec.tasks)} tasks, "
        f"{duration_s * 1e3:.1f} ms per inference"
    )
    return ReadyPolicy(bundle.name, policy, rate_hz, chunk, sampling_problem)


def _rate_hz(settings: PolicySettings, spec: Deployment, space: ActionSpace, robot: str) -> float:
    rate_hz = settings.rate_hz or spec.rate_hz
    if not spec.rate_hz / RATE_FACTOR <= rate_hz <= spec.rate_hz * RATE_FACTOR:
        raise ValueError(
            f"found rate_hz {rate_hz:g}, expected 0 or {spec.rate_hz / RATE_FACTOR:g} to "
            f"{spec.rate_hz * RATE_FACTOR:g}: the bundle was made for {spec.rate_hz:g}"
        )
    if not space.executes(1 / rate_hz):
        shortest_s, longest_s = space.step_range_s
        raise ValueError(
            f"found a rate of {rate_hz:g} Hz, expected {1 / longest_s:g} to {1 / shortest_s:g}, "
            f"which the controller of {robot} executes"
        )
    return rate_hz


def _chunk(settings: PolicySettings, spec: Deployment, rate_hz: float) -> ChunkSpec:
    chunk = spec.action.chunk
    if settings.execute_steps:
        chunk = replace(chunk, execute_steps=settings.execute_steps)
    if settings.inference:
        in_background = settings.inference == "background"
        decay = chunk.ensemble_decay if in_background else None
        chunk = replace(chunk, in_background=in_background, ensemble_decay=decay)
    longest_s = spec.action.max_observation_age_s
    if (chunk.execute_steps - 1) / rate_hz >= longest_s:
        raise ValueError(
            f"found {chunk.execute_steps} steps of a chunk at {rate_hz:g} Hz, expected at most "
            f"{math.ceil(longest_s * rate_hz)}: later ones would be executed more than "
            f"{longest_s:g} s, the bundle's max_observation_age_s, after their observation"
        )
    return chunk


def _warm_up(
    settings: PolicySettings,
    bundle: Bundle,
    policy: Policy,
    observation: Observation,
    chunk: ChunkSpec,
) -> float:
    """Use every model; return the duration of the last inference [s]."""
    policy.reset(0)
    for _ in range(WARM_UP_RUNS):
        start_s = time.perf_counter()
        steps = policy.infer(observation, settings.num_samples).steps
        duration_s = time.perf_counter() - start_s
        shape = (max(1, len(steps)), *policy.spec.action.low.shape)
        if steps.shape != shape or not np.isfinite(steps).all():
            raise BundleError(
                bundle.file,
                "warm-up",
                steps.tolist(),
                f"steps of finite numbers, shape {list(shape)}",
            )
    # In the background the steps after these are executed while the next chunk is computed.
    most = len(steps) - chunk.in_background
    if chunk.execute_steps > most:
        raise ValueError(
            f"found {chunk.execute_steps} steps to execute of a chunk of {len(steps)}, "
            f"expected at most {most}"
            + (" with inference in the background" if chunk.in_background else "")
        )
    return duration_s


def _mapping(text: str) -> dict[str, Any]:
    """Read the parameters of a kind of policy."""
    try:
        parameters = yaml.safe_load(text) if text else {}
    except yaml.YAMLError as error:
        raise ValueError(f"found policy_parameters {text!r}, expected YAML: {error}") from None
    if not isinstance(parameters, dict) or not all(isinstance(name, str) for name in parameters):
        raise ValueError(f"found policy_parameters {text!r}, expected a mapping as {{beta: 1.0}}")
    return parameters


def _close(policy: Policy) -> None:
    close = getattr(policy, "close", None)
    if close is not None:
        close()
