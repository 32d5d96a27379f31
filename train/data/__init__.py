"""Data sets: where examples come from, and in which order they are seen."""
