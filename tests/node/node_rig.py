"""A node under test in its own process, and another node around it that plays the rest."""

import os
import signal
import subprocess
import sys
import time

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from spun_nodes import SpunNodes

CONFIGURE = Transition.TRANSITION_CONFIGURE
ACTIVATE = Transition.TRANSITION_ACTIVATE
DEACTIVATE = Transition.TRANSITION_DEACTIVATE
CLEANUP = Transition.TRANSITION_CLEANUP


def wait_until(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False


class NodeRig:
    """Starts `python -m module`; `around` makes the node that plays the rest of the graph."""

    def __init__(self, domain, module, name, around, **parameters):
        self.name = name
        self._nodes = SpunNodes(domain)
        self.around = self._nodes.add(around(self._nodes.context))
        arguments = [part for key in parameters for part in ("-p", f"{key}:={parameters[key]}")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "--ros-args", *arguments],
            env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, service_type, name, request, timeout_s=30.0):
        return self._nodes.call(service_type, name, request, timeout_s)

    def wait_for(self, future, timeout_s=30.0):
        assert wait_until(future.done, timeout_s), "no answer"
        return future.result()

    def transition(self, transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.call(ChangeState, f"{self.name}/change_state", request).success

    def state(self):
        answer = self.call(GetState, f"{self.name}/get_state", GetState.Request())
        return answer.current_state.id

    def activate(self):
        assert self.transition(CONFIGURE)
        assert self.transition(ACTIVATE)

    def output(self):
        """End the node; return what it printed."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=20.0)[0]

    def close(self):
        # Before the process is killed: that may leave their shared memory in disorder.
        self._nodes.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
