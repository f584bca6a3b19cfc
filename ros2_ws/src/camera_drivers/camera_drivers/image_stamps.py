"""Stamps that never stand still nor lie in the future."""

# Between two readings of a clock it may seem to go back so far.
CLOCK_NOISE_NS = 1_000_000


class ImageStamps:
    """Gives the images of one camera their stamps on the node's clock."""

    def __init__(self) -> None:
        self._last_ns: int | None = None

    def stamp(self, now_ns: int, age_s: float) -> tuple[int, float]:
        """The stamp of an image.

        Args:
            now_ns: time on the node's clock; 0: simulated time has not begun.
            age_s: since the capture.

        Returns:
            The stamp [ns], later than the one before and not after `now_ns`, unless the clock
            stands (then a nanosecond later) or was set back; and by how much it was set back [s],
            0 where it was not.
        """
        if now_ns == 0:
            return 0, 0.0
        stamp_ns = max(0, now_ns - max(0, round(age_s * 1e9)))
        last_ns = self._last_ns
        set_back_s = 0.0
        if last_ns is not None and now_ns < last_ns - CLOCK_NOISE_NS:
            set_back_s = (last_ns - now_ns) * 1e-9
        elif last_ns is not None and stamp_ns <= last_ns:
            stamp_ns = last_ns + 1
        self._last_ns = stamp_ns
        return stamp_ns, set_back_s
