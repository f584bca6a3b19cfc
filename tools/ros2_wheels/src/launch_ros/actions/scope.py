"""Actions that set namespace, parameters and remappings for the nodes of a scope."""

from __future__ import annotations

from typing import Any

from launch import Action, LaunchContext, SomeSubstitutionsType
from launch.substitutions import SubstitutionFailure
from launch.utilities import normalize_to_list_of_substitutions, perform_substitutions
from rclpy.exceptions import InvalidNamespaceException
from rclpy.validate_namespace import validate_namespace

from ..utilities import evaluate_parameter_dict, make_namespace_absolute, prefix_namespace

# Launch configurations that Node reads; a scoped GroupAction saves and restores them.
NAMESPACE_KEY = "ros_namespace"
PARAMETERS_KEY = "global_params"
REMAPPINGS_KEY = "ros_remaps"


def _append(context: LaunchContext, key: str, items: list[Any]) -> None:
    """Extend a list in the launch configurations without changing that of an outer scope."""
    configurations = context.launch_configurations
    configurations[key] = [*configurations.get(key, []), *items]


class PushROSNamespace(Action):
    """Puts the nodes of the scope into a namespace."""

    def __init__(self, namespace: SomeSubstitutionsType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.namespace = normalize_to_list_of_substitutions(namespace)

    def execute(self, context: LaunchContext) -> None:
        """Set it; SubstitutionFailure when the result is no valid namespace."""
        pushed = perform_substitutions(context, self.namespace)
        previous = context.launch_configurations.get(NAMESPACE_KEY)
        namespace = make_namespace_absolute(prefix_namespace(previous, pushed)) or "/"
        try:
            validate_namespace(namespace)
        except InvalidNamespaceException as error:
            raise SubstitutionFailure(
                "The resulting namespace is invalid: "
                f"[previous_namespace='{previous}', pushed_namespace='{pushed}']"
            ) from error
        context.launch_configurations[NAMESPACE_KEY] = namespace


PushRosNamespace = PushROSNamespace


class SetParameter(Action):
    """Sets a parameter for the nodes of the scope."""

    def __init__(self, name: SomeSubstitutionsType, value: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = normalize_to_list_of_substitutions(name)
        self.value = value

    def execute(self, context: LaunchContext) -> None:
        """Set it."""
        name = perform_substitutions(context, self.name)
        parameters = evaluate_parameter_dict(context, {name: self.value})
        _append(context, PARAMETERS_KEY, list(parameters.items()))


class SetUseSimTime(SetParameter):
    """Sets `use_sim_time` for the nodes of the scope."""

    def __init__(self, value: Any, **kwargs: Any) -> None:
        super().__init__("use_sim_time", value, **kwargs)


class SetParametersFromFile(Action):
    """Sets the parameters of a YAML file for the nodes of the scope."""

    def __init__(self, filename: SomeSubstitutionsType, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filename = normalize_to_list_of_substitutions(filename)

    def execute(self, context: LaunchContext) -> None:
        """Set them."""
        _append(context, PARAMETERS_KEY, [perform_substitutions(context, self.filename)])


class SetRemap(Action):
    """Sets a remapping for the nodes of the scope."""

    def __init__(
        self, src: SomeSubstitutionsType, dst: SomeSubstitutionsType, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.src = normalize_to_list_of_substitutions(src)
        self.dst = normalize_to_list_of_substitutions(dst)

    def execute(self, context: LaunchContext) -> None:
        """Set it."""
        rule = (perform_substitutions(context, self.src), perform_substitutions(context, self.dst))
        _append(context, REMAPPINGS_KEY, [rule])
