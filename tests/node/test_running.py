"""How the process of any node starts, fails and ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from process_output import read_until
from rclpy.node import Node
from spun_nodes import SpunNodes
from std_msgs.msg import String

PROGRAM = textwrap.dedent(
    """
    import sys, threading
    from node_common.declared_parameters import declare_parameters
    from node_common.parameters import NodeParameter
    from node_common.running import StartError, run_node
    from rclpy.node import Node
    from std_msgs.msg import String

    class Talker(Node):
        def __init__(self, ending):
            super().__init__("talker")
            values = declare_parameters(self, [
                NodeParameter("fault", "", "what goes wrong", choices=("", "start", "file", "later",
                                                                       "callback")),
            ])
            fault = values["fault"]
            if fault == "start":
                raise StartError("no arm found")
            if fault == "file":
                open("/nowhere/file")
            if fault == "later":
                threading.Timer(0.5, lambda: ending.fail("the arm was unplugged")).start()
            self.out = self.create_publisher(String, "last_words", 10)
            if fault == "callback":
                self.create_timer(0.5, lambda: 1 / 0)
            self.create_timer(0.05, self.look)

        def look(self):
            if self.out.get_subscription_count():
                print("heard", flush=True)

        def destroy_node(self):
            if hasattr(self, "out"):  # otherwise its constructor has failed
                print("at rest", flush=True)
            super().destroy_node()

    def stop(node):
        node.out.publish(String(data="stop"))

    sys.exit(run_node("talker", Talker, on_end=stop))
    """
)


@pytest.fixture
def start(free_domain):
    processes = []

    def run(fault=""):
        command = [
            sys.executable,
            "-c",
            PROGRAM,
            "--ros-args",
            "-p",
            f"fault:={fault or chr(39) * 2}",
        ]
        processes.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "ROS_DOMAIN_ID": str(free_domain)},
            )
        )
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("start", "talker: no arm found"),
        ("file", "talker: [Errno 2] No such file or directory: '/nowhere/file'"),
        ("latter", "talker: parameter fault: found 'latter', expected one of"),
    ],
)
def test_what_keeps_a_node_from_starting_is_told_in_one_line(start, fault, message):
    process = start(fault)
    output, _ = process.communicate(timeout=40.0)
    assert process.returncode == 2
    assert message in output
    assert "Traceback" not in output and "at rest" not in output


def test_a_node_that_fails_later_brings_things_to_rest_and_says_why(start):
    process = start("later")
    output, _ = process.communicate(timeout=40.0)
    assert process.returncode == 1
    assert output.index("at rest") < output.index("talker: the arm was unplugged")


def test_an_exception_in_a_callback_brings_things_to_rest_too(start):
    process = start("callback")
    output, _ = process.communicate(timeout=40.0)
    assert process.returncode == 1
    assert "at rest" in output and "ZeroDivisionError" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_a_good_end_and_the_last_message_is_sent(start, free_domain, number):
    nodes = SpunNodes(free_domain)
    node, heard = nodes.add(Node("listener", context=nodes.context)), []
    node.create_subscription(String, "last_words", lambda m: heard.append(m.data), 10)
    try:
        process = start()
        read_until(process, process.stdout, "heard")
        process.send_signal(number)
        # A launch passes on what the terminal has sent already.
        process.send_signal(number)
        output, _ = process.communicate(timeout=40.0)
        assert process.returncode == 0, output
        assert "at rest" in output and "Traceback" not in output
        deadline_s = time.monotonic() + 20.0
        while not heard:
            assert time.monotonic() < deadline_s, "the last message was lost"
            time.sleep(0.01)
    finally:
        nodes.close()
