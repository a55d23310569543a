"""Which protocol, and what to expect of it: candidates, precision, optimal schedules, checks."""
