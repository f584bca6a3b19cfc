"""Damage to the bytes on the line, seeded."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class LineNoise:
    """Probabilities of damage, in both directions. Probabilities are 0..1.

    Corrupted and dropped count per byte; truncated (the end of a packet is lost) and delayed count
    per packet or chunk of bytes.
    """

    corrupt: float = 0.0
    drop: float = 0.0
    truncate: float = 0.0
    delay: float = 0.0
    delay_s: float = 0.02

    def __post_init__(self) -> None:
        for name in ("corrupt", "drop", "truncate", "delay"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} is {value}; expected a probability, 0..1")
        if not 0.0 <= self.delay_s <= 1.0:
            raise ValueError(f"delay_s is {self.delay_s}; expected 0..1 s")

    @staticmethod
    def of(settings: Iterable[str]) -> LineNoise:
        """The noise of words such as "corrupt=0.01"; without any: none.

        Raises:
            ValueError: an unknown key, or a value that is no number or out of range.
        """
        known = {field.name for field in fields(LineNoise)}
        values = {}
        for setting in settings:
            key, _, value = setting.partition("=")
            if key not in known:
                raise ValueError(f"unknown key '{key}'; expected one of {sorted(known)}")
            values[key] = float(value)
        return LineNoise(**values)


class NoisyLine:
    """Applies `LineNoise` to chunks of bytes and counts what it did."""

    def __init__(self, seed: int) -> None:
        """Start without noise.

        Args:
            seed: of the random numbers; the same bytes and seed give the same damage.
        """
        self.noise = LineNoise()
        self.damaged_bytes = 0
        self._random = random.Random(seed)

    def pass_through(self, data: bytes) -> tuple[bytes, float]:
        """Return what arrives and how much later it arrives, in s."""
        noise = self.noise
        if noise.corrupt == noise.drop == noise.truncate == noise.delay == 0.0:
            return data, 0.0
        rng = self._random
        arrived = bytearray()
        for byte in data:
            draw = rng.random()
            if draw < noise.drop:
                self.damaged_bytes += 1
            elif draw < noise.drop + noise.corrupt:
                self.damaged_bytes += 1
                arrived.append(byte ^ rng.randrange(1, 256))
            else:
                arrived.append(byte)
        if arrived and rng.random() < noise.truncate:
            keep = rng.randrange(len(arrived))
            self.damaged_bytes += len(arrived) - keep
            del arrived[keep:]
        delay = noise.delay_s if rng.random() < noise.delay else 0.0
        return bytes(arrived), delay
