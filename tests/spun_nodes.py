"""The nodes of a test itself, spun in threads of their own in one DDS domain."""

import threading
import time
import weakref

import rclpy
from rclpy.action import ActionClient
from rclpy.client import Client
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

_END_S = 10.0
_clients: weakref.WeakKeyDictionary[Node, dict[str, Client]] = weakref.WeakKeyDictionary()


def call(node, kind, name, request, timeout_s=20.0):
    """Call a service from a node that is spun; its answer."""
    # One client for all calls: a server drops its answer to one that it does not know yet.
    clients = _clients.setdefault(node, {})
    if name not in clients:
        clients[name] = node.create_client(kind, name)
    assert clients[name].wait_for_service(timeout_s), f"no service {name}"
    future = clients[name].call_async(request)
    deadline_s = time.monotonic() + timeout_s
    while not future.done():
        assert time.monotonic() < deadline_s, f"no answer of {name} in {timeout_s:g} s"
        time.sleep(0.005)
    return future.result()


class SpunNodes:
    """Make nodes with `context`, `add` them, and `close` at the end."""

    def __init__(self, domain):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self._spun = []

    def add(self, node, executor=None):
        """Spin a node from now on, and return it."""
        executor = executor or SingleThreadedExecutor(context=self.context)
        executor.add_node(node)
        thread = threading.Thread(target=_spin, args=(executor,), daemon=True)
        thread.start()
        self._spun.append((node, executor, thread))
        return node

    def call(self, kind, name, request, timeout_s=20.0):
        """Call a service from the node that was added first; its answer."""
        return call(self._spun[0][0], kind, name, request, timeout_s)

    def close(self):
        """End what spins, then the nodes: destroying one in its own callback kills Python."""
        for _, executor, _ in self._spun:
            executor.shutdown(timeout_sec=_END_S)
        for node, _, thread in self._spun:
            thread.join(_END_S)
            assert not thread.is_alive(), f"a callback of {node.get_name()} does not return"
            node.destroy_node()
        rclpy.try_shutdown(context=self.context)


def _spin(executor):
    while True:
        try:
            executor.spin()
        except ExternalShutdownException:
            # A test may end the context before the executor.
            return
        except InvalidHandle:
            # A test destroyed a publisher while its events were waited for here.
            continue
        except AttributeError as error:
            # rclpy lets an action client be waited for before its constructor has made its lock.
            if not isinstance(error.obj, ActionClient):
                raise
            continue
        return
