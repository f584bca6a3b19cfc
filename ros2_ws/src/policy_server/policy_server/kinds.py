"""Which class runs which kind of bundle.

Kinds come from this package and from installed packages that declare an entry point (name: the
kind, object: a class taking (Bundle, EngineOptions) and, by keyword, parameters of its own). A
bundle can name a kind but never a module, so reading one cannot import code.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from node_common.strict_yaml import BundleError, did_you_mean

from policy_server.bundle import Bundle
from policy_server.engine import EngineOptions

ProductT = TypeVar("ProductT")
FactoryT = TypeVar("FactoryT", bound=Callable[..., Any])


class Kinds(Generic[ProductT]):
    """The classes of one interface, by their kinds.

    Args:
        what: what they make, for messages.
        group: entry point group of those from other packages.
        own_modules: modules of this package that register the others when they are imported.
    """

    def __init__(self, what: str, group: str, own_modules: tuple[str, ...]) -> None:
        self._what = what
        self._group = group
        self._own_modules = own_modules
        self._factories: dict[str, Callable[..., ProductT]] = {}

    def register(self, kind: str) -> Callable[[FactoryT], FactoryT]:
        """Return a decorator that registers a class for a kind.

        Raises:
            ValueError: the kind is taken.
        """

        def register(factory: FactoryT) -> FactoryT:
            if kind in self._factories:
                raise ValueError(
                    f'the {self._what} kind "{kind}" is taken by {self._factories[kind]}'
                )
            self._factories[kind] = factory
            return factory

        return register

    def all(self) -> dict[str, Callable[..., ProductT]]:
        """Return every kind with its class.

        Raises:
            ValueError: two packages claim the same kind.
        """
        for module in self._own_modules:
            importlib.import_module(f"policy_server.{module}")
        kinds = dict(self._factories)
        for entry_point in importlib.metadata.entry_points(group=self._group):
            if entry_point.name in kinds:
                raise ValueError(
                    f'the {self._what} kind "{entry_point.name}" of {entry_point.value} is taken '
                    f"by {kinds[entry_point.name]}"
                )
            kinds[entry_point.name] = entry_point.load()
        return kinds

    def create(
        self,
        bundle: Bundle,
        options: EngineOptions,
        kind: str = "",
        parameters: Mapping[str, Any] | None = None,
    ) -> ProductT:
        """Make what runs a bundle.

        Args:
            bundle: a verified bundle.
            options: provider and threads.
            kind: "" for the bundle's own kind; another to run in its place.
            parameters: of the kind, e.g. what a wrapper needs beside the bundle.

        Raises:
            BundleError: the kind is unknown, has no such parameter, or the bundle lacks what it
                needs.
        """
        wanted = kind or bundle.deployment.policy.kind
        kinds = self.all()
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


def _check_parameters(kind: str, factory: Callable[..., Any], given: Mapping[str, Any]) -> None:
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
