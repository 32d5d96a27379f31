"""Models with latents: bounds on their likelihood."""
