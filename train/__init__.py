"""The training program: every file, clock, print and device of the project is here."""
