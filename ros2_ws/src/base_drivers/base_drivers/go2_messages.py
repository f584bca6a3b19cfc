"""Messages of the Go2."""

from __future__ import annotations

import time

from unitree_api.msg import Request
from unitree_go.msg import SportModeState

from base_drivers.go2.sport_service import Api, SportRequest, SportState

HEARD_TOPIC = "go2_stop_keeper/heard"
"""On which the stop keeper says which request it heard last."""


def request_message(request: SportRequest) -> Request:
    """Make a request, numbered by the steady time [ns]; what is repeated asks for no reply."""
    message = Request(parameter=request.parameter)
    message.header.identity.id = time.monotonic_ns()
    message.header.identity.api_id = int(request.api)
    message.header.policy.noreply = request.api in (Api.MOVE, Api.STOP_MOVE)
    return message


def state_from_message(message: SportModeState) -> SportState:
    """Read a state."""
    w, x, y, z = (float(value) for value in message.imu_state.quaternion)
    position = [float(value) for value in message.position]
    velocity = [float(value) for value in message.velocity]
    return SportState(
        mode=message.mode,
        error_code=message.error_code,
        position_m=(position[0], position[1], position[2]),
        quaternion_wxyz=(w, x, y, z),
        velocity_m_s=(velocity[0], velocity[1], velocity[2]),
        yaw_rate_rad_s=float(message.yaw_speed),
    )
