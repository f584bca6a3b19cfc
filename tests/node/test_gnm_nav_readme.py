"""The parameters in the README are those of the nodes."""

import re
from pathlib import Path

import gnm_nav.navigator_node as navigator_node
import gnm_nav.path_follower_node as path_follower_node
import pytest

README = Path(__file__).parents[2] / "ros2_ws" / "src" / "gnm_nav" / "README.md"


@pytest.mark.parametrize("node", [navigator_node, path_follower_node])
def test_every_parameter_is_listed_with_its_default(node):
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", README.read_text(), re.MULTILINE))
    for entry in node.PARAMETERS:
        assert entry.name in rows
        is_boolean = isinstance(entry.default, bool)
        default = str(entry.default).lower() if is_boolean else str(entry.default)
        assert rows[entry.name].strip('` "') == default, entry.name
