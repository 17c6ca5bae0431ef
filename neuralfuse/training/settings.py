"""Settings of trainings and fits as plain records: nothing here loads torch."""

import math
from dataclasses import dataclass

from sram.errors import InputError

PAPER_MAPS = 10  # fault maps of a step


def cosine(step: int, steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def paper_decay(step: int, steps: int) -> float:
    """StepLR(500, 0.96) of Sun et al."""
    return 0.96 ** (step // 500)


DECAYS = {"cosine": cosine, "paper": paper_decay}


PRECISIONS = ("float32", "bfloat16")  # names of torch types


def check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise InputError("training", "precision", precision, "one of " + ", ".join(PRECISIONS))


SUPERVISION = ("labels", "outputs", "statistics")


ACCESS = ("gradient", "queries")


@dataclass(frozen=True)
class Settings:
    """How a transform is fitted to a chip.

    `images` of the training images are used (None: all), a random choice that depends on the seed alone.
    `supervision`: their `labels`; or none, where the chip's answers to the transformed images are drawn to the clean
    network's answers to the plain ones: image for image (`outputs`, Kullback-Leibler), or only in the mean and
    covariance of the logits over a batch (`statistics`). `access`: `gradient` through the known faults, or `queries`,
    in which only outputs of the chip are seen (`access.tune_by_queries`). `learning_rate` None is 0.05 for numbers of
    pixels or channels and 0.005 for a generator. `precision`: of the products while fitting (`training.PRECISIONS`).
    """

    steps: int = 300
    batch: int = 128
    learning_rate: float | None = None
    images: int | None = None
    supervision: str = "labels"
    access: str = "gradient"
    precision: str = "float32"

    def __post_init__(self) -> None:
        for key, allowed in (("supervision", SUPERVISION), ("access", ACCESS), ("precision", PRECISIONS)):
            if getattr(self, key) not in allowed:
                raise InputError("calibrate", key, getattr(self, key), "one of " + ", ".join(allowed))
        for key in ("steps", "batch", "images"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise InputError("calibrate", key, value, "1 or more")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise InputError("calibrate", "learning_rate", self.learning_rate, "above 0")
        for key, value in (("supervision", "statistics"), ("precision", "bfloat16")):
            if self.access == "queries" and getattr(self, key) == value:
                raise InputError("calibrate", "access", self.access, f"gradient, with {key} = {value}")
