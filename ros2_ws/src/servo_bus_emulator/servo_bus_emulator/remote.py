"""An emulated servo bus in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emulators.remote import RemoteEmulator


class RemoteServoBus(RemoteEmulator):
    """Starts the command `servo_bus_emulator`.

    Args:
        folder: where the link `ttyDXL` and the socket are made.
        options: further options of the command.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__("servo_bus_emulator.main", folder / "ttyDXL", *options)

    def state(self) -> dict[int, dict[str, Any]]:
        """Return what the command `state` says, by servo id."""
        return {servo["id"]: servo for servo in self.read("state")}
