"""One run: its record, its loop, its checkpoints, its pictures, its processes."""
