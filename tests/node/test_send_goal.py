"""What `send_goal` makes of its parameter `goal`, without a navigator."""

import cv2
import numpy as np
import pytest
import rclpy
from gnm_nav.send_goal import GoalError, GoalSender


@pytest.fixture
def sender(free_domain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(goal):
        rclpy.init(args=["--ros-args", "-p", f"goal:={goal}"], domain_id=free_domain)
        node = GoalSender()
        request = node._request
        node.destroy_node()
        return request

    yield make
    rclpy.try_shutdown()


@pytest.mark.parametrize("name", ["coffee room", "coffee.png"])
def test_a_name_that_is_no_file_is_a_name(sender, name):
    assert sender(name).goal_node == name


def test_a_file_is_an_image(sender, tmp_path):
    cv2.imwrite(str(tmp_path / "coffee.png"), np.full((12, 16, 3), 7, np.uint8))
    request = sender("coffee.png")
    assert request.goal_node == "" and request.goal_image.width == 16


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"\x89PNG\r\n"])
def test_a_file_without_an_image_is_refused_with_a_sentence(sender, tmp_path, content):
    (tmp_path / "coffee.png").write_bytes(content)
    with pytest.raises(GoalError, match=r"coffee\.png"):
        sender("coffee.png")
