"""Pictures, reports, and the regions that they summarise by."""
