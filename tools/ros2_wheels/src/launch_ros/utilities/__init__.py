"""Functions shared by the ROS-specific actions."""

from .namespace_utils import make_namespace_absolute, prefix_namespace
from .parameter_evaluation import evaluate_parameter_dict

__all__ = ["evaluate_parameter_dict", "make_namespace_absolute", "prefix_namespace"]
