import math

import pytest

pytest.importorskip("ros2_wheels")

from launch import LaunchContext
from launch.conditions import IfCondition, InvalidConditionExpressionError, UnlessCondition
from launch.substitutions import (
    AndSubstitution,
    Command,
    EnvironmentVariable,
    EqualsSubstitution,
    FindExecutable,
    IfElseSubstitution,
    LaunchConfiguration,
    NotSubstitution,
    PathJoinSubstitution,
    PythonExpression,
    SubstitutionFailure,
    TextSubstitution,
)
from launch.utilities.type_utils import coerce_to_type, normalize_typed_substitution
from launch.utilities.type_utils import perform_typed_substitution as perform_typed


def context(**configurations):
    result = LaunchContext()
    result.launch_configurations.update(configurations)
    return result


def test_launch_configuration_value_default_and_absence():
    c = context(task="open_drawer")
    assert LaunchConfiguration("task").perform(c) == "open_drawer"
    assert LaunchConfiguration("rate", default=5).perform(c) == "5"
    nested = LaunchConfiguration("x", default=["a", LaunchConfiguration("task")])
    assert nested.perform(c) == "aopen_drawer"
    with pytest.raises(SubstitutionFailure, match="'rate' does not exist"):
        LaunchConfiguration("rate").perform(c)


def test_paths_are_joined_and_their_parts_concatenated():
    c = context(name="arm")
    path = PathJoinSubstitution(["/opt", ["config_", LaunchConfiguration("name"), ".yaml"]])
    assert path.perform(c) == "/opt/config_arm.yaml"
    assert (path / "x").perform(c) == "/opt/config_arm.yaml/x"
    # Joining must not change the double slash of an address.
    assert PathJoinSubstitution(["package://a", "b"]).perform(c) == "package://a/b"


def test_environment_variable_follows_the_contexts_environment(monkeypatch):
    monkeypatch.setenv("COXSWAIN_TEST_VARIABLE", "1")
    c = context()
    assert EnvironmentVariable("COXSWAIN_TEST_VARIABLE").perform(c) == "1"
    c._push_environment()
    del c.environment["COXSWAIN_TEST_VARIABLE"]
    assert EnvironmentVariable("COXSWAIN_TEST_VARIABLE", default_value="no").perform(c) == "no"
    c._pop_environment()
    assert EnvironmentVariable("COXSWAIN_TEST_VARIABLE").perform(c) == "1"


def test_python_expressions_know_math_without_prefix():
    expression = PythonExpression(["floor(", LaunchConfiguration("x"), ") + math.pi"])
    assert float(expression.perform(context(x="2.7"))) == pytest.approx(2 + math.pi)


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("1", True, True),
        ("TRUE", "1", True),
        ("0.3", 0.1 + 0.2, True),
        ("a", "A", False),
        (None, "", True),
        (LaunchConfiguration("x"), "7", True),
    ],
)
def test_equals_compares_bools_then_numbers_then_text(left, right, equal):
    text = EqualsSubstitution(left, right).perform(context(x="7.0"))
    assert text == str(equal).lower()


def test_boolean_substitutions_refuse_what_is_neither_true_nor_false():
    yes, no = TextSubstitution(text="1"), TextSubstitution(text="off")
    assert AndSubstitution(yes, NotSubstitution(no)).perform(context()) == "true"
    assert IfElseSubstitution(no, "a", "b").perform(context()) == "b"
    with pytest.raises(SubstitutionFailure, match="maybe"):
        NotSubstitution("maybe").perform(context())


def test_conditions_refuse_the_empty_text():
    assert IfCondition(" True ").evaluate(context())
    assert UnlessCondition("0").evaluate(context())
    with pytest.raises(InvalidConditionExpressionError, match="got ''"):
        IfCondition(LaunchConfiguration("x")).evaluate(context(x=""))


def test_command_output_errors_and_stderr():
    shell = FindExecutable(name="sh").perform(context())
    assert Command([shell, " -c 'echo $((6*7))'"]).perform(context()) == "42\n"
    with pytest.raises(SubstitutionFailure, match="showed stderr"):
        Command("sh -c 'echo oops >&2'").perform(context())
    captured = Command("sh -c 'echo oops >&2'", on_stderr="capture")
    assert captured.perform(context()) == "oops\n"
    with pytest.raises(SubstitutionFailure, match="failed"):
        Command("sh -c 'exit 3'", on_stderr="ignore").perform(context())
    with pytest.raises(SubstitutionFailure, match="not found"):
        Command("/no/such/program").perform(context())


def test_typed_values_are_converted_or_refused():
    assert coerce_to_type("5", float) == 5.0
    assert coerce_to_type("007", str) == "007"
    assert coerce_to_type("off", bool) is False
    assert coerce_to_type("[1, 2]", list[int]) == [1, 2]
    assert coerce_to_type("[a, b]") == ["a", "b"]
    for text, data_type in [
        ("5.5", int),
        ("yes please", bool),
        ("[1, x]", list[int]),
        ("{}", None),
    ]:
        with pytest.raises(ValueError, match=r"convert|invalid literal"):
            coerce_to_type(text, data_type)
    with pytest.raises(TypeError, match="not an instance"):
        normalize_typed_substitution(1, str)
    mixed = normalize_typed_substitution([1.0, [LaunchConfiguration("x")]], list[float])
    assert perform_typed(context(x="2"), mixed, list[float]) == [1.0, 2.0]
