"""An emulated Kobuki in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emulators.remote import RemoteEmulator


class RemoteKobuki(RemoteEmulator):
    """Starts the command `kobuki_emulator`.

    Args:
        folder: where the link `kobuki` and the socket are made.
        options: further options of the command.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__("base_drivers.kobuki_emulator.main", folder / "kobuki", *options)

    def state(self) -> dict[str, Any]:
        """Return what the command `state` says."""
        found: dict[str, Any] = self.read("state")
        return found

    def commands(self) -> list[tuple[float, float, float]]:
        """Base control commands since the last call: steady time [s], m/s, rad/s."""
        return [(at, x, yaw) for at, x, yaw in self.read("commands")]
