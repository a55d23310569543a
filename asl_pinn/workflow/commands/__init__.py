"""The commands, a module each.

Each has `USAGE`, a line about its arguments, and `ARGUMENTS`, what each positional one is;
`define_flags(values)`, which defines its flags in absl FlagValues; and `run(arguments, values)`,
which takes the positional arguments and the parsed flags, and returns the exit status, or raises
`InputError` for a fault of the user's.
"""
