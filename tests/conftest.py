"""Fixtures of all tests."""

import contextlib
import fcntl
import itertools
import os
import random
import signal
import socket
import tempfile
from pathlib import Path

import pytest

# RTPS: UDP port of a domain's participant for discovery, 7400 + 250 domain + 10 + 2 participant. A
# process numbers its participants through, whatever their domains.
_FIRST_PARTICIPANT_PORT = 7410
_PORTS_PER_DOMAIN = 250
_PARTICIPANTS = 8
# Ports of domains above 101 may be given to other programs by the kernel.
_DOMAINS = range(1, 102)
_calls = itertools.count()

# A shell that runs the tests in the background lets them ignore the interruption, and the programs
# that they start inherit that: none would end by it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption(
        "--alone",
        choices=["only", "without"],
        help="run only the tests marked 'alone', or all others",
    )


def pytest_collection_modifyitems(config, items):
    choice = config.getoption("--alone")
    if choice is None:
        return
    left_out = [
        item for item in items if bool(item.get_closest_marker("alone")) != (choice == "only")
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_unused(domain):
    first = _FIRST_PARTICIPANT_PORT + _PORTS_PER_DOMAIN * domain
    for port in range(first, first + 2 * _PARTICIPANTS, 2):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                return False
    return True


def _remove_leftovers(domain):
    """Remove what killed processes left in shared memory: a new one would lose its first messages,
    and be discovered only by those that it repeats every three seconds."""
    first = _FIRST_PARTICIPANT_PORT - 10 + _PORTS_PER_DOMAIN * domain
    shared_memory = Path("/dev/shm")
    for port in range(first, first + _PORTS_PER_DOMAIN):
        for pattern in (f"fastdds_port{port}", f"fastdds_port{port}_el"):
            (shared_memory / pattern).unlink(missing_ok=True)
        (shared_memory / f"sem.fastdds_port{port}_mutex").unlink(missing_ok=True)


@contextlib.contextmanager
def _claimed_domain():
    """A domain without processes, kept for a test whose processes bind its ports only later."""
    generator = random.Random(os.getpid() * 1_000_003 + next(_calls))
    folder = Path(tempfile.gettempdir())
    for domain in generator.sample(_DOMAINS, len(_DOMAINS)):
        with (folder / f"coxswain_tests_{os.getuid()}_domain_{domain}.lock").open("ab") as claim:
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if _is_unused(domain):
                _remove_leftovers(domain)
                yield domain
                return
    pytest.fail("every ROS domain is in use on this machine")


@pytest.fixture
def free_domain():
    """ROS_DOMAIN_ID that no process of this machine uses now."""
    with _claimed_domain() as domain:
        yield domain


@pytest.fixture(scope="module")
def module_domain():
    """The same for all tests of a module."""
    with _claimed_domain() as domain:
        yield domain
