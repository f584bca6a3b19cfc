"""What the arm's position servos do with a load.

A servo whose position controller has no I gain, as Interbotix leaves it, holds a load only by a
position error: load / stiffness. At the zero pose that is some 0.05 rad in the shoulder. An error
beyond `full_load_error_rad` asks for all the torque there is, which shuts the servo down soon.
One that moves needs an error for its speed as well: it trails its goal by `servo_lag_s`.
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
_MODELS: Final = tuple(XL430_W250 if name == "wrist_rotate" else XM430_W350 for name in JOINT_NAMES)


def servo_stiffness_nm_rad(position_p_gains: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the stiffness of the six arm joints at 12 V, shape (6,).

    Source: ROBOTIS e-manual, "Position PID Gain": K_P = register / 128, PWM units per tick of
    error; full PWM at rest gives the stall torque. Two servos turn shoulder and elbow.

    Args:
        position_p_gains: register Position_P_Gain of each joint.

    Raises:
        ValueError: they are not six numbers above 0.
    """
    stall_nm = [
        model.stall_torque_nm * (2 if name in _PAIRS else 1)
        for name, model in zip(JOINT_NAMES, _MODELS, strict=True)
    ]
    stiffness: npt.NDArray[np.float64] = np.array(stall_nm) / full_load_error_rad(position_p_gains)
    return stiffness


def full_load_error_rad(position_p_gains: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the position error at which each arm joint gives its stall torque, shape (6,).

    Source and arguments as for `servo_stiffness_nm_rad`; 0.217 rad at the factory gain of 800.

    Raises:
        ValueError: the gains are not six numbers above 0.
    """
    gains = np.asarray(position_p_gains, dtype=np.float64)
    if gains.shape != (len(JOINT_NAMES),) or not (gains > 0).all():
        raise ValueError(
            f"Position_P_Gain is {list(position_p_gains)}; a number above 0 is expected for each "
            f"of {', '.join(JOINT_NAMES)}"
        )
    error: npt.NDArray[np.float64] = FULL_PWM * RAD_PER_TICK * 128 / gains
    return error


def servo_lag_s(position_p_gains: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return by how much each arm joint that moves freely trails its goal at 12 V, shape (6,).

    The voltage that a speed asks for grows to full PWM at the speed without load, and the P gain
    makes it from an error. Source and arguments as for `servo_stiffness_nm_rad`; 0.045 s for an
    XM430-W350 at the factory gain of 800.

    Raises:
        ValueError: the gains are not six numbers above 0.
    """
    speeds = np.array([model.no_load_speed_rad_s for model in _MODELS])
    lag: npt.NDArray[np.float64] = full_load_error_rad(position_p_gains) / speeds
    return lag
