"""Measuring artifacts on devices: `host.measure` times jobs on this machine."""
