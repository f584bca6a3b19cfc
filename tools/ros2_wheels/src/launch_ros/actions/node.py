"""Action that runs a ROS node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from launch import LaunchContext, LaunchDescriptionEntity, SomeSubstitutionsType, logging
from launch.actions import ExecuteProcess
from launch.utilities import normalize_to_list_of_substitutions, perform_substitutions
from rclpy.validate_namespace import validate_namespace
from rclpy.validate_node_name import validate_node_name

from ..parameter_descriptions import Parameter, ParameterFile
from ..parameter_yaml import to_yaml, write_parameters_file
from ..substitutions import ExecutableInPackage
from ..utilities import evaluate_parameter_dict, make_namespace_absolute, prefix_namespace
from .scope import NAMESPACE_KEY, PARAMETERS_KEY, REMAPPINGS_KEY


class Node(ExecuteProcess):
    """Runs an executable of a package as a ROS node.

    Without `name` and `namespace` the node keeps those of its code. A relative `namespace` is
    put below that of the scope. `parameters` are dictionaries, paths of YAML files,
    ParameterFile and Parameter objects; later ones win. `remappings` are (from, to) pairs.
    """

    UNSPECIFIED_NODE_NAME = "<node_name_unspecified>"
    UNSPECIFIED_NODE_NAMESPACE = "<node_namespace_unspecified>"

    def __init__(
        self,
        *,
        executable: SomeSubstitutionsType,
        package: SomeSubstitutionsType | None = None,
        name: SomeSubstitutionsType | None = None,
        namespace: SomeSubstitutionsType | None = None,
        exec_name: SomeSubstitutionsType | None = None,
        parameters: Iterable[Any] | None = None,
        remappings: Iterable[tuple[SomeSubstitutionsType, SomeSubstitutionsType]] | None = None,
        ros_arguments: Iterable[SomeSubstitutionsType] | None = None,
        arguments: Iterable[SomeSubstitutionsType] | None = None,
        **kwargs: Any,
    ) -> None:
        program: SomeSubstitutionsType = (
            executable
            if package is None
            else ExecutableInPackage(package=package, executable=executable)
        )
        ros = [] if ros_arguments is None else ["--ros-args", *ros_arguments]
        super().__init__(cmd=[program, *(arguments or []), *ros], name=exec_name, **kwargs)
        if isinstance(parameters, (str, Mapping)):
            raise TypeError(f"Expecting list of parameters, got {parameters}")
        self.node_package = package
        self.node_executable = executable
        self._node_name = None if name is None else normalize_to_list_of_substitutions(name)
        self._node_namespace = (
            None if namespace is None else normalize_to_list_of_substitutions(namespace)
        )
        self._parameters = list(parameters or [])
        self._remappings = [
            (normalize_to_list_of_substitutions(src), normalize_to_list_of_substitutions(dst))
            for src, dst in remappings or []
        ]
        self._final_node_name: str | None = None
        self.expanded_node_namespace = self.UNSPECIFIED_NODE_NAMESPACE
        self.expanded_remapping_rules: list[tuple[str, str]] = []

    @property
    def node_name(self) -> str:
        """The node's full name, with placeholders for what is left to its code.

        Raises RuntimeError before the action is executed.
        """
        if self._final_node_name is None:
            raise RuntimeError("cannot access 'node_name' before executing action")
        return self._final_node_name

    def is_node_name_fully_specified(self) -> bool:
        """Return whether both name and namespace are known."""
        placeholders = (self.UNSPECIFIED_NODE_NAME, self.UNSPECIFIED_NODE_NAMESPACE)
        return not any(placeholder in self.node_name for placeholder in placeholders)

    def _perform_substitutions(self, context: LaunchContext) -> None:
        """Compute name, parameters and remappings and append them to the command."""
        if self._final_node_name is not None:
            return
        arguments = [*self._name_arguments(context)]
        for entry in context.launch_configurations.get(PARAMETERS_KEY, []):
            arguments += self._file_arguments(entry) if isinstance(entry, str) else _rule(*entry)
        for entry in self._parameters:
            arguments += self._parameter_arguments(context, entry)
        self.expanded_remapping_rules = [
            *context.launch_configurations.get(REMAPPINGS_KEY, []),
            *(
                (perform_substitutions(context, src), perform_substitutions(context, dst))
                for src, dst in self._remappings
            ),
        ]
        for src, dst in self.expanded_remapping_rules:
            arguments += ["-r", f"{src}:={dst}"]
        self.process_description.cmd += [
            normalize_to_list_of_substitutions(part) for part in ["--ros-args", *arguments]
        ]

    def _name_arguments(self, context: LaunchContext) -> list[str]:
        arguments = []
        name = self.UNSPECIFIED_NODE_NAME
        if self._node_name is not None:
            name = perform_substitutions(context, self._node_name)
            validate_node_name(name)
            arguments += ["-r", f"__node:={name}"]
        own = self._node_namespace
        namespace = make_namespace_absolute(
            prefix_namespace(
                context.launch_configurations.get(NAMESPACE_KEY),
                None if own is None else perform_substitutions(context, own),
            )
        )
        if namespace:
            validate_namespace(namespace)
            self.expanded_node_namespace = namespace
            arguments += ["-r", f"__ns:={namespace}"]
        self._final_node_name = prefix_namespace(self.expanded_node_namespace, name)
        return arguments

    def _parameter_arguments(self, context: LaunchContext, entry: Any) -> list[str]:
        if isinstance(entry, Mapping):
            target = self.node_name if self.is_node_name_fully_specified() else "/**"
            parameters = evaluate_parameter_dict(context, entry)
            path = write_parameters_file({target: {"ros__parameters": parameters}})
            return ["--params-file", str(path)]
        if isinstance(entry, Parameter):
            return _rule(*entry.evaluate(context))
        file = entry if isinstance(entry, ParameterFile) else ParameterFile(entry)
        return self._file_arguments(str(file.evaluate(context)))

    def _file_arguments(self, path: str) -> list[str]:
        if not Path(path).is_file():
            logging.get_logger("launch_ros.actions.node").warning(
                f"Parameter file path is not a file: {path}"
            )
            return []
        return ["--params-file", str(Path(path).absolute())]

    def execute(self, context: LaunchContext) -> list[LaunchDescriptionEntity] | None:
        """Start the node; warn when this launch has already started one of the same name."""
        self._perform_substitutions(context)
        result = super().execute(context)
        if self.is_node_name_fully_specified():
            started = context.get_locals_as_dict().get("unique_ros_node_names", {})
            count = started.get(self.node_name, 0) + 1
            context.extend_globals({"unique_ros_node_names": {**started, self.node_name: count}})
            if count > 1:
                logging.get_logger(self.name).warning(
                    f"there are now at least {count} nodes with the name {self.node_name} "
                    "created within this launch context"
                )
        return result


def _rule(name: str, value: Any) -> list[str]:
    """Return the arguments that set one parameter."""
    return ["-p", f"{name}:={to_yaml(value)}"]
