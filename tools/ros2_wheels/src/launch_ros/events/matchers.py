"""Matchers of node actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["matches_node_name"]


def matches_node_name(node_name: str) -> Callable[[Any], bool]:
    """Return a matcher of the node action with this full name."""
    full_name = node_name if node_name.startswith("/") else f"/{node_name}"
    return lambda action: action.node_name == full_name
