"""Runs policy bundles on a robot: loading, inference, pacing and the policy node."""
