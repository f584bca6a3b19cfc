import pytest
from graph_launch.launch_arguments import ArgumentError, LaunchArgument, check_arguments

ARGUMENTS = (
    LaunchArgument("episodes", "5", "", "integer", 1, 100),
    LaunchArgument("rate_hz", "", "", "number", 0.1, 50.0, optional=True),
    LaunchArgument("sim", "true", "", "boolean"),
    LaunchArgument("viewer", "none", "", "choice", choices=("none", "web")),
    LaunchArgument("task", "all", ""),
    LaunchArgument("filter", "", "", "choice", choices=("fast", "exact"), optional=True),
)


def test_defaults_and_types():
    given = {"rate_hz": "2.5", "sim": "False", "viewer": "web", "sigterm_timeout": "3"}
    values = check_arguments(ARGUMENTS, given)
    assert values == {
        "episodes": 5,
        "rate_hz": 2.5,
        "sim": False,
        "viewer": "web",
        "task": "all",
        "filter": None,
    }
    assert check_arguments(ARGUMENTS, {})["rate_hz"] is None
    assert check_arguments(ARGUMENTS, {"filter": "exact"})["filter"] == "exact"


@pytest.mark.parametrize("argument", ARGUMENTS, ids=lambda argument: argument.name)
def test_launch_accepts_every_default(argument):
    """`DeclareLaunchArgument` refuses a default that is not among the choices."""
    assert argument.allowed_texts is None or argument.default in argument.allowed_texts


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("episodes", "0", "1 .. 100"),
        ("episodes", "101", "1 .. 100"),
        ("episodes", "2.5", "whole number"),
        ("episodes", "", "empty"),
        ("rate_hz", "nan", "0.1 .. 50"),
        ("rate_hz", "inf", "0.1 .. 50"),
        ("rate_hz", "five", "a number"),
        ("sim", "maybe", "true, false"),
        ("viewer", "windows", "none, web"),
        ("filter", "slow", "one of fast, exact$"),
        ("task", " ", "empty"),
    ],
)
def test_wrong_values_are_refused_with_what_was_expected(name, text, expected):
    with pytest.raises(ArgumentError, match=expected) as error:
        check_arguments(ARGUMENTS, {name: text})
    assert name in str(error.value)


def test_every_problem_is_named_at_once():
    with pytest.raises(ArgumentError) as error:
        check_arguments(ARGUMENTS, {"episode": "3", "colour": "red", "rate_hz": "0"})
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "did you mean 'episodes'" in lines[0] and "did you mean" not in lines[1]
