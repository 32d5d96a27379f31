"""The time that `--minutes` allows for training steps, by the first process's clock."""

import dataclasses

from . import processes


@dataclasses.dataclass(frozen=True)
class Budget:
    """Minutes of training steps; None for as many as it takes."""

    minutes: float | None

    def is_over(self, seconds: float) -> bool:
        """Whether it is used up after so many seconds."""
        if self.minutes is None:
            return False
        return processes.all_gather(seconds >= 60 * self.minutes)[0]

    def steps(self, most: int, seconds: float, rate: float | None) -> int:
        """How many of `most` steps to take before the clock is read again.

        Args:
            most: at least 1.
            seconds: used so far.
            rate: steps per second of the last ones; None where there are none yet.
        """
        if self.minutes is None:
            return most
        left = max(0.0, 60 * self.minutes - seconds)
        num = 1 if rate is None else max(1, min(most, round(left * rate)))
        return processes.all_gather(num)[0]

    def told(self, seconds: float) -> str:
        """The sentence for its end."""
        return (
            f"the time is over: {seconds / 60:.2f} of {self.minutes:g} minutes of "
            "training are used"
        )
