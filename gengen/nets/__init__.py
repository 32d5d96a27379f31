"""Linen modules, one architecture a file. They know shapes, never losses."""
