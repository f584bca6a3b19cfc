"""Which class runs which kind of policy.

Kinds come from this package and from installed packages that declare an entry point in the group
`coxswain.policies` (name: the kind, object: a class taking (Bundle, EngineOptions) and, by keyword,
parameters of its own). A bundle can name a kind but never a module, so reading one cannot import
code.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from node_common.strict_yaml import BundleError, did_you_mean

from policy_server.bundle import Bundle, load_bundle
from policy_server.engine import EngineOptions
from policy_server.policy import Policy

ENTRY_POINT_GROUP = "coxswain.policies"
_OWN_MODULES = ("ptr", "chunked", "random_policy")

PolicyFactory = Callable[..., Policy]
"""Takes a bundle, engine options and, by keyword, the parameters of its kind."""
FactoryT = TypeVar("FactoryT", bound=PolicyFactory)
_factories: dict[str, PolicyFactory] = {}


def register_policy(kind: str) -> Callable[[FactoryT], FactoryT]:
    """Return a decorator that registers a policy class for a kind.

    Raises:
        ValueError: the kind is taken.
    """

    def register(factory: FactoryT) -> FactoryT:
        if kind in _factories:
            raise ValueError(f'the policy kind "{kind}" is taken by {_factories[kind]}')
        _factories[kind] = factory
        return factory

    return register


def policy_kinds() -> dict[str, PolicyFactory]:
    """Return every kind with its class.

    Raises:
        ValueError: two packages claim the same kind.
    """
    for module in _OWN_MODULES:
        importlib.import_module(f"policy_server.{module}")
    kinds = dict(_factories)
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        if entry_point.name in kinds:
            raise ValueError(
                f'the policy kind "{entry_point.name}" of {entry_point.value} is taken by '
                f"{kinds[entry_point.name]}"
            )
        kinds[entry_point.name] = entry_point.load()
    return kinds


def create_policy(
    bundle: Bundle,
    options: EngineOptions,
    kind: str = "",
    parameters: Mapping[str, Any] | None = None,
) -> Policy:
    """Make the policy that runs a bundle.

    Args:
        bundle: a verified bundle.
        options: provider and threads.
        kind: "" for the bundle's own kind; another to run in its place, e.g. "random".
        parameters: of the kind, e.g. what a wrapper needs beside the bundle.

    Raises:
        BundleError: the kind is unknown, has no such parameter, or the bundle lacks what it needs.
    """
    wanted = kind or bundle.deployment.policy.kind
    kinds = policy_kinds()
    if wanted not in kinds:
        raise BundleError(
            bundle.file,
            "deployment.policy.kind",
            wanted,
            f"available: {sorted(kinds)}{did_you_mean(wanted, kinds)}",
        )
    parameters = parameters or {}
    _check_parameters(wanted, kinds[wanted], parameters)
    return kinds[wanted](bundle, options, **parameters)


def _check_parameters(kind: str, factory: PolicyFactory, given: Mapping[str, Any]) -> None:
    _, _, *known = inspect.signature(factory).parameters.values()
    names = [parameter.name for parameter in known]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known)
    for name in given:
        if name not in names and not takes_any:
            raise BundleError(
                "policy_parameters",
                name,
                given[name],
                f'parameters of the kind "{kind}": {names}{did_you_mean(name, names)}',
            )
    for parameter in known:
        needed = parameter.default is inspect.Parameter.empty and parameter.kind not in (
            inspect.Parameter.VAR_KEYWORD,
            inspect.Parameter.VAR_POSITIONAL,
        )
        if needed and parameter.name not in given:
            raise BundleError(
                "policy_parameters",
                parameter.name,
                "nothing",
                f'a value, which the kind "{kind}" needs',
            )


def load_policy(
    file: Path,
    options: EngineOptions | None = None,
    kind: str = "",
    parameters: Mapping[str, Any] | None = None,
) -> Policy:
    """Read, verify and load the bundle whose YAML is `file`. See `create_policy`."""
    return create_policy(load_bundle(file), options or EngineOptions(), kind, parameters)
