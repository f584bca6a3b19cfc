"""Which class runs which kind of policy; see `policy_server.kinds`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policy_server.bundle import load_bundle
from policy_server.engine import EngineOptions
from policy_server.kinds import Kinds
from policy_server.policy import Policy

POLICIES: Kinds[Policy] = Kinds("policy", "coxswain.policies", ("ptr", "chunked", "random_policy"))

register_policy = POLICIES.register
policy_kinds = POLICIES.all
create_policy = POLICIES.create


def load_policy(
    file: Path,
    options: EngineOptions | None = None,
    kind: str = "",
    parameters: Mapping[str, Any] | None = None,
) -> Policy:
    """Read, verify and load the bundle whose YAML is `file`. See `Kinds.create`."""
    return create_policy(load_bundle(file), options or EngineOptions(), kind, parameters)
