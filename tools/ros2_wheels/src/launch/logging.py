"""Logging of launch itself and of the output of its processes, to screen and to files."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

__all__ = ["get_logger", "get_output_loggers", "launch_config", "log_launch_config", "reset"]

_SOURCES = ("stdout", "stderr", "both")
_DESTINATIONS = ("screen", "log", "own_log")


def _logging_directory() -> Path:
    """Return $ROS_LOG_DIR, else $ROS_HOME/log, else ~/.ros/log."""
    log_dir = os.environ.get("ROS_LOG_DIR")
    if log_dir:
        return Path(log_dir).expanduser().absolute()
    return Path(os.environ.get("ROS_HOME") or "~/.ros").expanduser().absolute() / "log"


class _PerLoggerFormat(logging.Formatter):
    """Formats by the logger's name where one was set, else with the default format."""

    def __init__(self, default: logging.Formatter) -> None:
        super().__init__()
        self.default = default
        self.by_name: dict[str, logging.Formatter] = {}

    def format(self, record: logging.LogRecord) -> str:
        return self.by_name.get(record.name, self.default).format(record)


def _formatter(style_format: str, environment_variable: str | None = None) -> logging.Formatter:
    override = os.environ.get(environment_variable) if environment_variable else None
    if override:
        style_format = override.encode("latin1").decode("unicode_escape")
    return logging.Formatter(style_format, style="{")


class LaunchConfig:
    """Where and how this process's launch logs; use the module's `launch_config`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the handlers and the log directory."""
        self.level = logging.INFO
        self._log_dir: str | None = None
        self._screen: logging.Handler | None = None
        self._files: dict[str, logging.Handler] = {}
        self.loggers: set[str] = set()

    @property
    def log_dir(self) -> str:
        """The directory of this launch's log files, created on first use."""
        if self._log_dir is None:
            base = _logging_directory()
            stamp = datetime.datetime.now().strftime("%Y-%m-%d-%H-%M-%S-%f")
            directory = base / f"{stamp}-{socket.gethostname()}-{os.getpid()}"
            directory.mkdir(parents=True, exist_ok=True)
            latest = base / "latest"
            # Another launch may replace the link at the same moment: losing is harmless.
            with contextlib.suppress(OSError):
                if latest.is_symlink():
                    latest.unlink()
                latest.symlink_to(directory, target_is_directory=True)
            self._log_dir = str(directory)
        return self._log_dir

    def screen_handler(self) -> logging.Handler:
        """Return the one handler that writes to standard output."""
        if self._screen is None:
            self._screen = logging.StreamHandler(sys.stdout)
            self._screen.setFormatter(
                _PerLoggerFormat(
                    _formatter("[{levelname}] [{name}]: {msg}", "OVERRIDE_LAUNCH_SCREEN_FORMAT")
                )
            )
        return self._screen

    def file_handler(self, file_name: str = "launch.log") -> logging.Handler:
        """Return the handler of a file in the log directory."""
        if file_name not in self._files:
            handler = logging.FileHandler(Path(self.log_dir, file_name), encoding="utf-8")
            handler.setFormatter(
                _PerLoggerFormat(
                    _formatter(
                        "{created:.7f} [{levelname}] [{name}]: {msg}", "OVERRIDE_LAUNCH_LOG_FORMAT"
                    )
                )
            )
            self._files[file_name] = handler
        return self._files[file_name]


launch_config = LaunchConfig()


def _attach(name: str, handlers: list[tuple[logging.Handler, str | None]]) -> logging.Logger:
    logger = logging.getLogger(name)
    logger.propagate = False
    logger.setLevel(launch_config.level)
    launch_config.loggers.add(name)
    for handler, line_format in handlers:
        if line_format is not None and isinstance(handler.formatter, _PerLoggerFormat):
            handler.formatter.by_name[name] = logging.Formatter(line_format, style="{")
        if handler not in logger.handlers:
            logger.addHandler(handler)
    return logger


def get_logger(name: str | None = None) -> logging.Logger:
    """Return a logger that writes to the screen and to launch.log."""
    screen, file = launch_config.screen_handler(), launch_config.file_handler()
    return _attach(name or "launch", [(screen, None), (file, None)])


def log_launch_config(*, logger: logging.Logger) -> None:
    """Say where the log files are and how verbose launch is."""
    logger.info(f"All log files can be found below {launch_config.log_dir}")
    logger.info(f"Default logging verbosity is set to {logging.getLevelName(launch_config.level)}")


def _destinations(output: Any) -> dict[str, set[str]]:
    """Return {source: destinations} for an output setting; ValueError for an unknown one."""
    named: dict[str, dict[str, set[str]]] = {
        "screen": {"both": {"screen"}},
        "log": {"both": {"log"}, "stderr": {"screen"}},
        "both": {"both": {"log", "screen"}},
        "own_log": {"both": {"own_log"}, "stdout": {"own_log"}, "stderr": {"own_log"}},
        "full": {
            "both": {"screen", "log", "own_log"},
            "stdout": {"own_log"},
            "stderr": {"own_log"},
        },
    }
    if isinstance(output, str):
        if output not in named:
            raise ValueError(
                f"{output} is not a valid standard output config, "
                f"expected one of {', '.join(named)}"
            )
        chosen = named[output]
    else:
        chosen = {s: {d} if isinstance(d, str) else set(d) for s, d in dict(output).items()}
    result: dict[str, set[str]] = {source: set() for source in _SOURCES}
    for source, destinations in chosen.items():
        if source not in _SOURCES:
            raise ValueError(f"{source} is not a valid output source, expected one of {_SOURCES}")
        if unknown := destinations - set(_DESTINATIONS):
            raise ValueError(
                f"{sorted(unknown)} is no valid output destination, expected {_DESTINATIONS}"
            )
        result[source] = destinations
    return result


def get_output_loggers(
    process_name: str, output_config: Any
) -> tuple[logging.Logger, logging.Logger]:
    """Return the loggers of a process's stdout and stderr.

    `output_config` is 'screen', 'log' (both to launch.log, stderr also to the screen), 'both',
    'own_log', 'full', or a dict {'stdout'|'stderr'|'both': destinations} with the destinations
    'screen', 'log' and 'own_log'. Raises ValueError for anything else.
    """
    wanted = _destinations(output_config)
    loggers = []
    for source in ("stdout", "stderr"):
        shared = wanted["both"] | wanted[source]
        handlers: list[tuple[logging.Handler, str | None]] = []
        if "screen" in shared:
            handlers.append((launch_config.screen_handler(), "{msg}"))
        if "log" in shared:
            handlers.append((launch_config.file_handler(), "{created:.7f} {msg}"))
        if "own_log" in wanted[source]:
            handlers.append((launch_config.file_handler(f"{process_name}-{source}.log"), "{msg}"))
        if "own_log" in wanted["both"]:
            handlers.append((launch_config.file_handler(f"{process_name}.log"), "{msg}"))
        loggers.append(_attach(f"{process_name}-{source}", handlers))
    return loggers[0], loggers[1]


def reset() -> None:
    """Close all log files and forget the configuration."""
    for name in launch_config.loggers:
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
    launch_config.reset()
