"""Autoregression without networks: decoding, tempering, and completion by clamping."""
