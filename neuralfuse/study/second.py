"""A second network of a study, at nominal supply: in place of the one at low voltage, joined with it at the outputs, or
before it for the images that it is sure of."""

from typing import Annotated, Literal

from pydantic import Field

from neuralfuse.study.strict import Strict
from neuralfuse.training.settings import Count

Other = Annotated[str, Field(min_length=1, max_length=1000)]  # the name of another of the study's networks
MOST_CHIPS = 1000  # of a fit


class FusedConfig(Strict):
    """log-softmax of the second network plus a weight times that of the low-voltage one: the answer is the largest sum.

    The weight is fitted at each operating point to training images: on training chips, one weight for the lot
    (`per_lot`), or on each chip with its own faults (`per_chip`).
    """

    network: Other
    fit: Literal["per_lot", "per_chip"] = "per_lot"
    chips: Annotated[int, Field(ge=1, le=MOST_CHIPS)] = 4  # of training, of a fit per lot
    images: Count = 512  # of training


class CascadeConfig(Strict):
    """The second network first; the low-voltage one only for the images where the largest softmax probability of the
    second is below the threshold."""

    network: Other
    threshold: Annotated[float, Field(ge=0, le=1)]
