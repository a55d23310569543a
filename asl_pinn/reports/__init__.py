"""Pages about results: one a participant and method, and one about all of a method's."""

from asl_pinn.reports.group import write_group_page
from asl_pinn.reports.participant import report_files

__all__ = ["report_files", "write_group_page"]
