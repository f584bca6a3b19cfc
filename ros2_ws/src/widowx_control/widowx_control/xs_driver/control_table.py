"""Control tables of the DYNAMIXEL servos in a WidowX 250 6DOF: a description, no code.

Names, addresses, sizes, ranges and initial values are those of the ROBOTIS e-manual for
XM430-W350 and XL430-W250 (firmware 45); names use underscores, as Interbotix does. The driver and
the servo bus emulator read this one description and encode bytes each in its own way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

TICKS_PER_TURN: Final = 4096
CENTRE_TICKS: Final = 2048
"""Position register value at 0 rad."""
RAD_PER_TICK: Final = 2 * math.pi / TICKS_PER_TURN
RAD_PER_S_PER_UNIT: Final = 0.229 * 2 * math.pi / 60
"""Velocity registers count 0.229 rev/min."""
RAD_PER_S2_PER_UNIT: Final = 214.577 * 2 * math.pi / 3600
"""Acceleration registers count 214.577 rev/min^2."""
MA_PER_UNIT: Final = 2.69
FULL_PWM: Final = 885
"""PWM register value at 100 % duty."""
WATCHDOG_MS_PER_UNIT: Final = 20
WATCHDOG_TRIPPED: Final = 255
"""Bus_Watchdog reads -1 (255) after a trip, and goals are read-only until 0 is written."""

MODE_CURRENT: Final = 0
MODE_VELOCITY: Final = 1
MODE_POSITION: Final = 3
MODE_EXTENDED_POSITION: Final = 4
MODE_CURRENT_BASED_POSITION: Final = 5
MODE_PWM: Final = 16

DRIVE_REVERSE: Final = 0x01
DRIVE_TIME_PROFILE: Final = 0x04
DRIVE_TORQUE_ON_BY_GOAL: Final = 0x08
"""A goal switches torque on by itself."""

ERROR_VOLTAGE: Final = 0x01
ERROR_OVERHEATING: Final = 0x04
ERROR_ENCODER: Final = 0x08
ERROR_ELECTRICAL_SHOCK: Final = 0x10
ERROR_OVERLOAD: Final = 0x20
HARDWARE_ERROR_NAMES: Final = MappingProxyType(
    {
        ERROR_VOLTAGE: "input voltage",
        ERROR_OVERHEATING: "overheating",
        ERROR_ENCODER: "motor encoder",
        ERROR_ELECTRICAL_SHOCK: "electrical shock",
        ERROR_OVERLOAD: "overload",
    }
)

NO_SECONDARY_ID: Final = 255
EEPROM_END: Final = 64
"""Registers below this address keep their value without power and are locked under torque."""
TABLE_END: Final = 147
"""First address after Present_Temperature; what the driver reads lies below it."""


@dataclass(frozen=True)
class Register:
    """One register. `minimum`..`maximum` is the range that a write may have, in raw units."""

    name: str
    address: int
    size: int
    writable: bool
    initial: int
    minimum: int
    maximum: int

    @property
    def eeprom(self) -> bool:
        """Whether the value survives a power cycle and is locked while torque is on."""
        return self.address < EEPROM_END

    @property
    def signed(self) -> bool:
        """Whether the register holds two's complement. Every 2- and 4-byte value is read as such,

        as Interbotix does; one-byte registers are unsigned.
        """
        return self.size > 1


@dataclass(frozen=True)
class ServoModel:
    """One servo model: its control table and what its data sheet says at 12 V."""

    name: str
    number: int
    registers: MappingProxyType[str, Register]
    operating_modes: frozenset[int]
    stall_torque_nm: float
    stall_current_ma: float
    no_load_speed_rad_s: float

    @property
    def has_current_sensor(self) -> bool:
        """Whether address 126 is Present_Current in 2.69 mA; otherwise Present_Load in 0.1 %."""
        return "Present_Current" in self.registers


def _table(rows: str) -> MappingProxyType[str, Register]:
    registers = {}
    for row in rows.strip().splitlines():
        address, size, name, access, initial, minimum, maximum = row.split()
        registers[name] = Register(
            name, int(address), int(size), access == "RW", int(initial), int(minimum), int(maximum)
        )
    return MappingProxyType(registers)


# address size name access initial minimum maximum
_XM430_W350 = """
0 2 Model_Number R 1020 0 65535
2 4 Model_Information R 0 0 0
6 1 Firmware_Version R 45 0 255
7 1 ID RW 1 0 252
8 1 Baud_Rate RW 1 0 7
9 1 Return_Delay_Time RW 250 0 254
10 1 Drive_Mode RW 0 0 13
11 1 Operating_Mode RW 3 0 16
12 1 Secondary_ID RW 255 0 255
13 1 Protocol_Type RW 2 1 2
20 4 Homing_Offset RW 0 -1044479 1044479
24 4 Moving_Threshold RW 10 0 1023
31 1 Temperature_Limit RW 80 0 100
32 2 Max_Voltage_Limit RW 160 95 160
34 2 Min_Voltage_Limit RW 95 95 160
36 2 PWM_Limit RW 885 0 885
38 2 Current_Limit RW 1193 0 1193
44 4 Velocity_Limit RW 200 0 1023
48 4 Max_Position_Limit RW 4095 0 4095
52 4 Min_Position_Limit RW 0 0 4095
60 1 Startup_Configuration RW 0 0 3
63 1 Shutdown RW 52 0 255
64 1 Torque_Enable RW 0 0 1
65 1 LED RW 0 0 1
68 1 Status_Return_Level RW 2 0 2
69 1 Registered_Instruction R 0 0 1
70 1 Hardware_Error_Status R 0 0 255
76 2 Velocity_I_Gain RW 1920 0 16383
78 2 Velocity_P_Gain RW 100 0 16383
80 2 Position_D_Gain RW 0 0 16383
82 2 Position_I_Gain RW 0 0 16383
84 2 Position_P_Gain RW 800 0 16383
88 2 Feedforward_2nd_Gain RW 0 0 16383
90 2 Feedforward_1st_Gain RW 0 0 16383
98 1 Bus_Watchdog RW 0 0 127
100 2 Goal_PWM RW 885 -885 885
102 2 Goal_Current RW 1193 -1193 1193
104 4 Goal_Velocity RW 0 -1023 1023
108 4 Profile_Acceleration RW 0 0 32767
112 4 Profile_Velocity RW 0 0 32767
116 4 Goal_Position RW 0 -1048575 1048575
120 2 Realtime_Tick R 0 0 32767
122 1 Moving R 0 0 1
123 1 Moving_Status R 0 0 255
124 2 Present_PWM R 0 -885 885
126 2 Present_Current R 0 -1193 1193
128 4 Present_Velocity R 0 -1023 1023
132 4 Present_Position R 0 -1048575 1048575
136 4 Velocity_Trajectory R 0 -1023 1023
140 4 Position_Trajectory R 0 -1048575 1048575
144 2 Present_Input_Voltage R 120 0 300
146 1 Present_Temperature R 25 0 100
"""


def _xl430(rows: str) -> str:
    changed = {
        "Model_Number": "0 2 Model_Number R 1060 0 65535",
        "Temperature_Limit": "31 1 Temperature_Limit RW 72 0 100",
        "Max_Voltage_Limit": "32 2 Max_Voltage_Limit RW 140 60 140",
        "Min_Voltage_Limit": "34 2 Min_Voltage_Limit RW 60 60 140",
        "Velocity_Limit": "44 4 Velocity_Limit RW 265 0 1023",
        "Velocity_I_Gain": "76 2 Velocity_I_Gain RW 1000 0 16383",
        "Position_D_Gain": "80 2 Position_D_Gain RW 4000 0 16383",
        "Position_P_Gain": "84 2 Position_P_Gain RW 640 0 16383",
        "Present_Current": "126 2 Present_Load R 0 -1000 1000",
    }
    absent = {"Current_Limit", "Goal_Current"}
    kept = [row for row in rows.strip().splitlines() if row.split()[2] not in absent]
    return "\n".join(changed.get(row.split()[2], row) for row in kept)


XM430_W350: Final = ServoModel(
    name="XM430-W350",
    number=1020,
    registers=_table(_XM430_W350),
    operating_modes=frozenset(
        {
            MODE_CURRENT,
            MODE_VELOCITY,
            MODE_POSITION,
            MODE_EXTENDED_POSITION,
            MODE_CURRENT_BASED_POSITION,
            MODE_PWM,
        }
    ),
    stall_torque_nm=4.1,
    stall_current_ma=2300.0,
    no_load_speed_rad_s=46 * 2 * math.pi / 60,
)
XL430_W250: Final = ServoModel(
    name="XL430-W250",
    number=1060,
    registers=_table(_xl430(_XM430_W350)),
    operating_modes=frozenset({MODE_VELOCITY, MODE_POSITION, MODE_EXTENDED_POSITION, MODE_PWM}),
    stall_torque_nm=1.5,
    stall_current_ma=1400.0,
    no_load_speed_rad_s=61 * 2 * math.pi / 60,
)
MODELS: Final = MappingProxyType({model.number: model for model in (XM430_W350, XL430_W250)})
"""Supported servo models by model number."""


def hardware_error_text(status: int) -> str:
    """Return the names of the bits in a Hardware_Error_Status, or 'none'."""
    names = [name for bit, name in HARDWARE_ERROR_NAMES.items() if status & bit]
    unknown = status & ~sum(HARDWARE_ERROR_NAMES)
    if unknown:
        names.append(f"unknown bits {unknown:#04x}")
    return ", ".join(names) or "none"
