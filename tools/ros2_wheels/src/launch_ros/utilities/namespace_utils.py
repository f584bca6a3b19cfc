"""Combination of ROS namespaces."""

from __future__ import annotations


def prefix_namespace(base_ns: str | None, ns: str | None) -> str | None:
    """Return `ns` below `base_ns`; an absolute `ns` stays, None stands for no namespace.

    A trailing slash is removed, except from the root namespace.
    """
    if ns is None:
        combined = base_ns
    elif not base_ns or ns.startswith("/"):
        combined = ns
    else:
        combined = f"{base_ns.rstrip('/')}/{ns}"
    if combined is None or combined == "/":
        return combined
    return combined.rstrip("/")


def make_namespace_absolute(ns: str | None) -> str | None:
    """Return the namespace with a leading slash; None stays None."""
    if ns is None or ns.startswith("/"):
        return ns
    return f"/{ns}"
