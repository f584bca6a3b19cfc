"""Which motions a pressed bumper or a cliff leaves."""

from __future__ import annotations

from dataclasses import dataclass

from base_drivers.velocity import Velocity


@dataclass(frozen=True)
class Contacts:
    """What the base feels; all sensors look forward, to the left or to the right."""

    bumper_left: bool = False
    bumper_center: bool = False
    bumper_right: bool = False
    cliff_left: bool = False
    cliff_center: bool = False
    cliff_right: bool = False
    wheel_drop_left: bool = False
    wheel_drop_right: bool = False

    @property
    def bumper(self) -> bool:
        """Whether any bumper is pressed."""
        return self.bumper_left or self.bumper_center or self.bumper_right

    @property
    def cliff(self) -> bool:
        """Whether any sensor sees no floor."""
        return self.cliff_left or self.cliff_center or self.cliff_right

    @property
    def wheel_drop(self) -> bool:
        """Whether a wheel hangs: the base was lifted, or stands over an edge."""
        return self.wheel_drop_left or self.wheel_drop_right


def allowed_motion(wanted: Velocity, contacts: Contacts) -> Velocity:
    """Take away what would press on, or roll over the edge.

    Backwards and away is allowed. Sideways is not while something touches. Without driving back, a
    turn is allowed only away from the side that touches: a front that touches in the middle, or on
    both sides, allows none.

    Args:
        wanted: velocity asked for.
        contacts: what the base feels; wheel drops are not judged here.
    """
    left = contacts.bumper_left or contacts.cliff_left
    center = contacts.bumper_center or contacts.cliff_center
    right = contacts.bumper_right or contacts.cliff_right
    if not (left or center or right):
        return wanted
    if wanted.x < 0.0:
        return Velocity(wanted.x, 0.0, wanted.yaw)
    yaw = wanted.yaw
    if center or (left and right) or (left and yaw > 0.0) or (right and yaw < 0.0):
        yaw = 0.0
    return Velocity(0.0, 0.0, yaw)
