"""The servo bus of a WidowX 250 6DOF, built from the same YAML file that its driver reads."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from widowx_control.xs_driver.configuration import ArmConfiguration
from widowx_control.xs_driver.control_table import DRIVE_REVERSE, XL430_W250, XM430_W350

from servo_bus_emulator.bus import BusTiming, EmulatedBus
from servo_bus_emulator.plant import Plant, RigidJoint, RigidPlant
from servo_bus_emulator.servo import Servo

XL430_MOTORS: Final = frozenset({"wrist_rotate", "gripper"})
"""Motors that are XL430-W250; the others are XM430-W350."""

RIGID_JOINTS: Final = MappingProxyType(
    {
        "waist": RigidJoint(inertia_kg_m2=0.08),
        "shoulder": RigidJoint(
            inertia_kg_m2=0.15, load_nm=-1.1, lower_rad=-1.85, upper_rad=1.99, start_rad=-1.80
        ),
        "elbow": RigidJoint(
            inertia_kg_m2=0.08, load_nm=1.2, lower_rad=-2.15, upper_rad=1.61, start_rad=1.55
        ),
        "forearm_roll": RigidJoint(inertia_kg_m2=0.02),
        "wrist_angle": RigidJoint(
            inertia_kg_m2=0.02, load_nm=0.15, lower_rad=-1.75, upper_rad=2.15, start_rad=0.8
        ),
        "wrist_rotate": RigidJoint(inertia_kg_m2=0.006, friction_nm=0.05),
        "gripper": RigidJoint(
            inertia_kg_m2=0.003,
            damping_nm_s_per_rad=0.02,
            friction_nm=0.05,
            lower_rad=-0.378,
            upper_rad=1.2684,
        ),
    }
)
"""The built-in plant at the sleep pose: independent joints, with gravity as a constant load. Joint
inertias are those of the arm about the axis, stretched half out, plus the rotors'."""


def widowx_servos(
    configuration: ArmConfiguration,
    *,
    factory_settings: bool = False,
    assembly_offsets_ticks: Mapping[str, int] | None = None,
) -> list[Servo]:
    """Return the servos of the arm.

    Args:
        configuration: of the arm; gives IDs, EEPROM values, mirrored mounting and shadows.
        factory_settings: leave EEPROM at the factory's values but for ID and baud rate, instead of
            as configured.
        assembly_offsets_ticks: by motor, how far its horn is off on the shaft.
    """
    offsets = assembly_offsets_ticks or {}
    master_of = {s: m for m, shadows in configuration.shadows.items() for s in shadows}
    servos = []
    for name, motor in configuration.motors.items():
        eeprom = {"ID": motor.servo_id, "Baud_Rate": 3}
        if not factory_settings:
            eeprom.update(motor.eeprom)
        reverse = motor.eeprom.get("Drive_Mode", 0) & DRIVE_REVERSE
        servos.append(
            Servo(
                XL430_W250 if name in XL430_MOTORS else XM430_W350,
                master_of.get(name, name),
                eeprom,
                mounting_sign=-1 if reverse else 1,
                assembly_offset_ticks=offsets.get(name, 0),
            )
        )
    return servos


def widowx_bus(
    configuration: ArmConfiguration,
    *,
    plant: Plant | None = None,
    timing: BusTiming | None = None,
    seed: int = 0,
    factory_settings: bool = False,
    assembly_offsets_ticks: Mapping[str, int] | None = None,
) -> EmulatedBus:
    """Return the bus of the arm; see `widowx_servos` and `EmulatedBus` for the arguments.

    Without a plant, the built-in independent joints are used.
    """
    servos = widowx_servos(
        configuration,
        factory_settings=factory_settings,
        assembly_offsets_ticks=assembly_offsets_ticks,
    )
    return EmulatedBus(servos, plant or RigidPlant(RIGID_JOINTS), timing=timing, seed=seed)
