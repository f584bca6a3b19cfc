"""Dependencies between packages point one way, and none needs the node or driver of another."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "ros2_ws" / "src"
PACKAGES = {
    path.parent.name: path.parent
    for pattern in ("*/*/__init__.py", "compat/*/*/__init__.py")
    for path in SOURCE.glob(pattern)
}


def imported_modules(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of(package):
    """The modules of other packages of ours that a package imports, launch files included."""
    files = PACKAGES[package].parent.rglob("*.py")
    modules = {module for file in files for module in imported_modules(file)}
    others = PACKAGES.keys() - {package}
    return {module for module in modules if module.split(".")[0] in others}


@pytest.fixture(scope="module")
def imports():
    return {package: imports_of(package) for package in PACKAGES}


def test_no_packages_import_each_other(imports):
    needs = {p: {module.split(".")[0] for module in modules} for p, modules in imports.items()}
    order = list(graphlib.TopologicalSorter(needs).static_order())
    assert set(order) == set(PACKAGES)
    assert needs["node_common"] == set()


def is_node_or_driver(module):
    package, _, name = module.partition(".")
    file = (PACKAGES[package] / name.replace(".", "/")).with_suffix(".py")
    return file.is_file() and (
        file.stem == "driver" or bool(re.search(r"\breturn run_node\(", file.read_text()))
    )


def test_no_package_imports_a_node_or_a_driver_of_another(imports):
    assert is_node_or_driver("policy_server.policy_node")
    assert is_node_or_driver("widowx_control.xs_driver.driver")
    forbidden = {p: sorted(filter(is_node_or_driver, modules)) for p, modules in imports.items()}
    assert {p: modules for p, modules in forbidden.items() if modules} == {}
