"""One family a file: a `static` dataclass with init, losses, sample, log_likelihood."""
