"""Forward and inverse kinematics of the wx250s arm on pinocchio, from the URDF of this project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pinocchio as pin
from widowx_description import load_numbers, urdf_text

Array = npt.NDArray[np.float64]

_NUMBERS: Final = load_numbers()
JOINT_NAMES: Final[tuple[str, ...]] = tuple(_NUMBERS["joints"])
JOINT_LOWER_RAD: Final = np.array([_NUMBERS["joints"][n]["lower"] for n in JOINT_NAMES])
JOINT_UPPER_RAD: Final = np.array([_NUMBERS["joints"][n]["upper"] for n in JOINT_NAMES])
JOINT_VELOCITY_RAD_S: Final = np.array([_NUMBERS["joints"][n]["velocity"] for n in JOINT_NAMES])
NAMED_POSES: Final[dict[str, tuple[float, ...]]] = {
    name: tuple(float(q) for q in joints) for name, joints in _NUMBERS["named_poses"].items()
}
END_EFFECTOR_LINK: Final = "ee_gripper_link"

for _constant in (JOINT_LOWER_RAD, JOINT_UPPER_RAD, JOINT_VELOCITY_RAD_S):
    _constant.setflags(write=False)


@dataclass(frozen=True)
class IkResult:
    """What `ArmKinematics.inverse` found: the best joint positions, converged or not."""

    joint_positions_rad: Array
    """(6,), within the limits that were asked for."""
    converged: bool
    position_error_m: float
    rotation_error_rad: float


class ArmKinematics:
    """Kinematics of the six arm joints, base_link to ee_gripper_link.

    Not thread-safe: pinocchio's workspace is reused between calls.
    """

    POSITION_TOLERANCE_M: Final = 2e-4
    ROTATION_TOLERANCE_RAD: Final = 1e-3
    _ROTATION_WEIGHT_M: Final = 0.3  # 1 rad of rotation error counts like 0.3 m
    _MAX_ITERATIONS: Final = 30
    _MAX_ITERATION_STEP_RAD: Final = 0.4

    def __init__(self, urdf: str | None = None) -> None:
        """Build the model.

        Args:
            urdf: URDF text with the wx250s joint names; None: the project's own.

        Raises:
            ValueError: the URDF lacks a joint or the end-effector link.
        """
        model = pin.buildModelFromXML(urdf or urdf_text())
        missing = [name for name in JOINT_NAMES if not model.existJointName(name)]
        if missing or not model.existFrame(END_EFFECTOR_LINK):
            raise ValueError(
                f"URDF {model.name!r} lacks {', '.join(missing) or END_EFFECTOR_LINK}; "
                f"a wx250s with joints {', '.join(JOINT_NAMES)} and the link {END_EFFECTOR_LINK} "
                "(links without prefix) is needed"
            )
        locked = [i for i, name in enumerate(model.names) if i and name not in JOINT_NAMES]
        self._model = pin.buildReducedModel(model, locked, pin.neutral(model))
        self._data = self._model.createData()
        self._frame = self._model.getFrameId(END_EFFECTOR_LINK)
        self.joint_lower_rad: Array = np.maximum(self._model.lowerPositionLimit, JOINT_LOWER_RAD)
        self.joint_upper_rad: Array = np.minimum(self._model.upperPositionLimit, JOINT_UPPER_RAD)

    def forward(self, joint_positions_rad: npt.ArrayLike) -> Array:
        """Return the (4, 4) pose of ee_gripper_link in base_link for (6,) joint positions."""
        q = np.asarray(joint_positions_rad, dtype=np.float64)
        pin.framesForwardKinematics(self._model, self._data, q)
        pose: Array = self._data.oMf[self._frame].homogeneous.copy()
        return pose

    def jacobian(self, joint_positions_rad: npt.ArrayLike) -> Array:
        """Return the (6, 6) Jacobian at ee_gripper_link along base_link axes: linear, angular."""
        q = np.asarray(joint_positions_rad, dtype=np.float64)
        jacobian: Array = pin.computeFrameJacobian(
            self._model, self._data, q, self._frame, pin.LOCAL_WORLD_ALIGNED
        )
        return jacobian

    def gravity_torques_nm(self, joint_positions_rad: npt.ArrayLike) -> Array:
        """Return the (6,) torques that carry the unloaded arm's weight at (6,) joint positions."""
        q = np.asarray(joint_positions_rad, dtype=np.float64)
        torques: Array = pin.computeGeneralizedGravity(self._model, self._data, q).copy()
        return torques

    def inverse(
        self,
        pose_base_ee: npt.ArrayLike,
        seed_rad: npt.ArrayLike,
        *,
        max_joint_step_rad: float | None = None,
        limit_margin_rad: float = 0.0,
    ) -> IkResult:
        """Find joint positions near a seed that reach a pose, or the nearest reachable pose.

        Levenberg-Marquardt (damped least squares, damping in proportion to the squared error:
        Sugihara, "Solvability-unconcerned inverse kinematics by the Levenberg-Marquardt method",
        IEEE T-RO 2011) with box constraints: a joint that would leave its range is fixed at the
        bound and the others are solved again. The damping keeps joint steps small near
        singularities; the box about the seed keeps the solution on the seed's branch.

        Args:
            pose_base_ee: (4, 4) wanted pose of ee_gripper_link in base_link, m.
            seed_rad: (6,) where to start; moved into the limits first.
            max_joint_step_rad: no joint moves further than this from the seed; None: no bound.
            limit_margin_rad: distance kept from the joint limits.
        """
        target = np.asarray(pose_base_ee, dtype=np.float64)
        lower = self.joint_lower_rad + limit_margin_rad
        upper = self.joint_upper_rad - limit_margin_rad
        q = np.clip(np.asarray(seed_rad, dtype=np.float64), lower, upper)
        if max_joint_step_rad is not None:
            lower = np.maximum(lower, q - max_joint_step_rad)
            upper = np.minimum(upper, q + max_joint_step_rad)
        weight = self._ROTATION_WEIGHT_M
        best_q, best_cost, best_errors = q, np.inf, (np.inf, np.inf)
        for _ in range(self._MAX_ITERATIONS):
            jacobian = pin.computeFrameJacobian(
                self._model, self._data, q, self._frame, pin.LOCAL_WORLD_ALIGNED
            )
            placement = pin.updateFramePlacement(self._model, self._data, self._frame)
            linear = target[:3, 3] - placement.translation
            angular = pin.log3(target[:3, :3] @ placement.rotation.T)
            position_error = float(np.sqrt(linear @ linear))
            rotation_error = float(np.sqrt(angular @ angular))
            cost = position_error**2 + (weight * rotation_error) ** 2
            if cost < best_cost:
                improvement = best_cost - cost
                best_q, best_cost = q, cost
                best_errors = (position_error, rotation_error)
                if (
                    position_error < self.POSITION_TOLERANCE_M
                    and rotation_error < self.ROTATION_TOLERANCE_RAD
                ):
                    return IkResult(q, True, position_error, rotation_error)
                if improvement < 1e-4 * cost:
                    break
            error = np.concatenate([linear, weight * angular])
            jacobian[3:] *= weight
            normal = jacobian.T @ jacobian
            gradient = jacobian.T @ error
            damping = 0.5 * cost + 1e-6
            step = self._box_step(normal, gradient, damping, lower - q, upper - q)
            largest = float(np.abs(step).max())
            if largest < 1e-7:
                break
            if largest > self._MAX_ITERATION_STEP_RAD:
                step *= self._MAX_ITERATION_STEP_RAD / largest
            q = np.clip(q + step, lower, upper)
        return IkResult(best_q, False, *best_errors)

    @staticmethod
    def _box_step(normal: Array, gradient: Array, damping: float, low: Array, high: Array) -> Array:
        """Solve (normal + damping I) step = gradient with low <= step <= high, by fixing joints."""
        step = np.zeros(len(gradient))
        free = ~(((low >= 0) & (gradient < 0)) | ((high <= 0) & (gradient > 0)))
        while free.any():
            index = np.flatnonzero(free)
            fixed = np.flatnonzero(~free)
            matrix = normal[np.ix_(index, index)] + damping * np.eye(len(index))
            right = gradient[index] - normal[np.ix_(index, fixed)] @ step[fixed]
            solution = np.linalg.solve(matrix, right)
            outside = (solution < low[index]) | (solution > high[index])
            if not outside.any():
                step[index] = solution
                break
            step[index[outside]] = np.clip(solution, low[index], high[index])[outside]
            free[index[outside]] = False
        return step
