"""How far the arm's position servos give way under the arm's weight.

A servo whose position controller has no I gain, as Interbotix leaves it, holds a load only by a
position error: load / stiffness. At the zero pose that is some 0.05 rad in the shoulder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from widowx_control.kinematics import JOINT_NAMES
from widowx_control.xs_driver.control_table import (
    FULL_PWM,
    RAD_PER_TICK,
    XL430_W250,
    XM430_W350,
)

FACTORY_P_GAIN: Final = XM430_W350.registers["Position_P_Gain"].initial
_PAIRS: Final = frozenset({"shoulder", "elbow"})
_SMALL: Final = frozenset({"wrist_rotate"})


def servo_stiffness_nm_rad(position_p_gains: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the stiffness of the six arm joints at 12 V, shape (6,).

    Source: ROBOTIS e-manual, "Position PID Gain": K_P = register / 128, PWM units per tick of
    error; full PWM at rest gives the stall torque. Two servos turn shoulder and elbow.

    Args:
        position_p_gains: register Position_P_Gain of each joint.

    Raises:
        ValueError: they are not six numbers above 0.
    """
    gains = np.asarray(position_p_gains, dtype=np.float64)
    if gains.shape != (len(JOINT_NAMES),) or not (gains > 0).all():
        raise ValueError(
            f"Position_P_Gain is {list(position_p_gains)}; a number above 0 is expected for each "
            f"of {', '.join(JOINT_NAMES)}"
        )
    stall_nm = [
        (XL430_W250 if name in _SMALL else XM430_W350).stall_torque_nm
        * (2 if name in _PAIRS else 1)
        for name in JOINT_NAMES
    ]
    return gains / 128 / RAD_PER_TICK / FULL_PWM * np.array(stall_nm)
