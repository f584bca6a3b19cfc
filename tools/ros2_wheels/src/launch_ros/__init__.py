"""ROS-specific actions for launch, for ROS 2 installations from wheels, which lack them."""

from . import (
    actions,
    descriptions,
    event_handlers,
    events,
    parameter_descriptions,
    substitutions,
)

__all__ = [
    "actions",
    "descriptions",
    "event_handlers",
    "events",
    "parameter_descriptions",
    "substitutions",
]
