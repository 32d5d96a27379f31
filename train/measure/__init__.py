"""Figures of trained runs: quality, likelihood, scores, speed."""
