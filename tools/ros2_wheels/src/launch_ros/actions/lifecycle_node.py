"""Action that runs a lifecycle node and reports and requests its transitions."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

from launch import (
    EventHandler,
    LaunchContext,
    LaunchDescriptionEntity,
    SomeSubstitutionsType,
    logging,
)
from launch.actions import OpaqueFunction
from lifecycle_msgs.msg import TransitionEvent
from lifecycle_msgs.srv import ChangeState as ChangeStateService
from rclpy.client import Client

from ..events.lifecycle import ChangeState, StateTransition
from ..ros_adapters import get_ros_node
from .node import Node

_POLL_PERIOD_S = 0.05


class LifecycleNode(Node):
    """Runs a lifecycle node.

    Emits StateTransition whenever the node changes its state and executes the ChangeState events
    that match it.
    """

    def __init__(
        self,
        *,
        name: SomeSubstitutionsType,
        namespace: SomeSubstitutionsType,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, namespace=namespace, **kwargs)

    def execute(self, context: LaunchContext) -> list[LaunchDescriptionEntity] | None:
        """Watch the node's transitions, accept ChangeState events and start the node."""
        self._perform_substitutions(context)
        node = get_ros_node(context)
        loop = context.asyncio_loop

        def on_transition(message: TransitionEvent) -> None:
            event = StateTransition(action=self, msg=message)
            with contextlib.suppress(RuntimeError):  # the loop may be closed already
                loop.call_soon_threadsafe(context.emit_event_sync, event)

        self._subscription = node.create_subscription(
            TransitionEvent, f"{self.node_name}/transition_event", on_transition, 10
        )
        self._client: Client[Any, Any] = node.create_client(
            ChangeStateService, f"{self.node_name}/change_state"
        )
        context.register_event_handler(
            EventHandler(
                matcher=lambda e: isinstance(e, ChangeState) and e.lifecycle_node_matcher(self),
                entities=[OpaqueFunction(function=self._on_change_state)],
            )
        )
        return super().execute(context)

    def _on_change_state(self, context: LaunchContext) -> None:
        task = context.asyncio_loop.create_task(
            self._change_state(context, context.locals.event.transition_id)
        )
        context.add_completion_future(task)

    async def _change_state(self, context: LaunchContext, transition_id: int) -> None:
        """Call the node's service, giving up when the launch shuts down."""
        logger = logging.get_logger("launch_ros.actions.lifecycle_node")
        request = ChangeStateService.Request()
        request.transition.id = transition_id
        service = self._client.srv_name
        while not context.is_shutdown and not self._client.service_is_ready():
            await asyncio.sleep(_POLL_PERIOD_S)
        if context.is_shutdown:
            logger.warning(f"Abandoning wait for the '{service}' service, due to shutdown.")
            return
        response = self._client.call_async(request)
        while not context.is_shutdown and not response.done():
            await asyncio.sleep(_POLL_PERIOD_S)
        if not response.done():
            logger.warning(
                f"Abandoning wait for the '{service}' service response, due to shutdown."
            )
        elif not cast(Any, response.result()).success:
            logger.error(
                f"Failed to make transition '{ChangeState.valid_transitions[transition_id]}' "
                f"for LifecycleNode '{self.node_name}'"
            )
