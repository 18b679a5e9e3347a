"""The results of a run as report.json, report.md and one self-contained report.html."""

from edgegen.report.render import write
from edgegen.report.schema import Report

__all__ = ["Report", "write"]
