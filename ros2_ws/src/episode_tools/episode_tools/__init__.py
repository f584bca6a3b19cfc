"""Runs, judges, reports and shows policy episodes."""
