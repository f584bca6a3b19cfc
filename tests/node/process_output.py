"""Reads what a process prints, and does not wait for ever for what it does not print."""

import threading


def read_until(process, stream, text, timeout_s=40.0):
    """Return the lines that a process prints up to one with `text`.

    A process that has not printed it in time is killed, which ends its output.
    """
    lines: list[str] = []
    late = threading.Timer(timeout_s, process.kill)
    late.start()
    try:
        for line in stream:
            lines.append(line)
            if text in line:
                return lines
    finally:
        late.cancel()
    raise AssertionError(f"ended, or {timeout_s:g} s passed, without '{text}': {''.join(lines)}")
