"""Pages about results: one a participant and method, and one about all of a method's."""

from asl_pinn.viz.reports.group import read_group, write_group_page
from asl_pinn.viz.reports.participant import report_files

__all__ = ["read_group", "report_files", "write_group_page"]
