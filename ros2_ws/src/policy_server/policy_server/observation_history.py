"""What a policy sees of the past: the observations of the last ticks, and its own last action."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy_server.deployment import Deployment

LAST_ACTION = "last_action"


class ObservationHistory:
    """Adds the past to what is seen at a tick.

    Where there is none yet, the oldest that is known stands for it; the action before the first one
    is zero.

    Args:
        spec: of the policy.
    """

    def __init__(self, spec: Deployment) -> None:
        self._action = np.zeros(len(spec.action.names))
        self._last_actions = [
            (observation.name, [spec.action.names.index(name) for name in observation.names])
            for observation in spec.states
            if observation.kind == LAST_ACTION
        ]
        self._past: dict[str, deque[NDArray[Any]]] = {
            observation.name: deque(maxlen=observation.history)
            for observation in spec.sensed
            if observation.history > 1
        }

    def clear(self) -> None:
        """Forget the past, after which the next tick is not a period later."""
        for values in self._past.values():
            values.clear()

    def acted(self, action: NDArray[np.float64]) -> None:
        """Remember what was commanded, shape (A,)."""
        self._action = action

    def extend(self, values: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Return the values of a tick with their histories; call it once per tick."""
        if not self._past and not self._last_actions:
            return values
        extended = dict(values)
        for name, indices in self._last_actions:
            extended[name] = self._action[indices].astype(np.float32)
        for name, past in self._past.items():
            past.append(extended[name])
            missing = (past.maxlen or 0) - len(past)
            extended[name] = np.stack([*[past[0]] * missing, *past])
        return extended
