"""The command line: option groups, names of values, errors as sentences."""
