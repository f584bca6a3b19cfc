"""Which class runs which kind of policy.

Kinds come from this package and from installed packages that declare an entry point in the group
`coxswain.policies` (name: the kind, object: a class taking (Bundle, EngineOptions)). A bundle can
name a kind but never a module, so reading one cannot import code.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from node_common.strict_yaml import BundleError, did_you_mean

from policy_server.bundle import Bundle, load_bundle
from policy_server.engine import EngineOptions
from policy_server.policy import Policy

ENTRY_POINT_GROUP = "coxswain.policies"
_OWN_MODULES = ("ptr", "chunked", "random_policy")

PolicyFactory = Callable[[Bundle, EngineOptions], Policy]
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


def create_policy(bundle: Bundle, options: EngineOptions, kind: str = "") -> Policy:
    """Make the policy that runs a bundle.

    Args:
        bundle: a verified bundle.
        options: provider and threads.
        kind: "" for the bundle's own kind; another to run in its place, e.g. "random".

    Raises:
        BundleError: the kind is unknown, or the bundle lacks what the kind needs.
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
    return kinds[wanted](bundle, options)


def load_policy(file: Path, options: EngineOptions | None = None, kind: str = "") -> Policy:
    """Read, verify and load the bundle whose YAML is `file`. See `create_policy`."""
    return create_policy(load_bundle(file), options or EngineOptions(), kind)
