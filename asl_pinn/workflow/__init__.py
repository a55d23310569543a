"""The command line, and one run or many from files to reports."""
