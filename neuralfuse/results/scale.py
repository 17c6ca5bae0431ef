"""What the numbers of a study are: the unit of its scores, their direction, and how they are written.

Rows and tables hold scores, of which more is always better: an error counts against them, as in scikit-learn's
`neg_mean_absolute_error`. People read the quantity itself: `shown` turns the one into the other.
"""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The unit and direction of a metric. `share`: its scores are shares from 0 to 1, said in per cent, and differ in
    points.

    >>> bits = Scale(name="bits", unit="bits a character", higher_is_better=False, margins=(0.01, 0.02, 0.05))
    >>> bits.shown(-1.5), bits.within(0.01), bits.text(-1.5, -1.625, -1.25)
    (1.5, '0.01 bits a character', '1.5 bits a character [1.25, 1.625]')
    >>> ACCURACY.shown(0.5), ACCURACY.within(1.0), ACCURACY.text(0.5, 0.25, 0.75)
    (50.0, '1 point', '50.0% [25.0, 75.0]')
    """

    name: str
    unit: str
    higher_is_better: bool = True
    share: bool = False
    margins: tuple[float, ...] = (1.0, 2.0, 5.0)  # what is kept "within so much of clean", in the unit

    @property
    def per_score(self) -> int:
        """Units in a score of 1."""
        return 100 if self.share else 1

    @property
    def factor(self) -> int:
        """From a score to what is shown."""
        return self.per_score if self.higher_is_better else -self.per_score

    @property
    def bounds(self) -> tuple[float, float]:
        """What a score can be."""
        return (0.0, 1.0) if self.share else (-math.inf, math.inf)

    @property
    def differences(self) -> tuple[float, float]:
        """What a difference of two scores can be."""
        return (-1.0, 1.0) if self.share else (-math.inf, math.inf)

    @property
    def form(self) -> str:
        """How a number is written."""
        return ".1f" if self.share else ".4g"

    @property
    def axis(self) -> str:
        """The label of an axis."""
        return f"Test {self.name} (%)" if self.share else f"Test {self.name} ({self.unit})"

    @property
    def head(self) -> str:
        """The head of a column."""
        return f"{self.name} (%)" if self.share else f"{self.name} ({self.unit})"

    def shown(self, score: Any) -> Any:
        """What is read, in per cent or the unit, of scores: a number, an array or a column of them."""
        return self.factor * score

    def within(self, margin: float) -> str:
        """A margin with its unit."""
        return f"{margin:g} {self.unit.removesuffix('s') if self.share and margin == 1 else self.unit}"

    def number(self, score: float, low: float = math.nan, high: float = math.nan) -> str:
        """A score as it is shown, without its unit, and its bounds."""
        ends = sorted((self.shown(low), self.shown(high)))
        bounds = "" if pd.isna(low) else " [{}, {}]".format(*(f"{end:{self.form}}" for end in ends))
        return f"{self.shown(score):{self.form}}{bounds}"

    def text(self, score: float, low: float = math.nan, high: float = math.nan) -> str:
        """The same with its unit."""
        number, space, bounds = self.number(score, low, high).partition(" ")
        return number + ("%" if self.share else f" {self.unit}") + space + bounds


ACCURACY = Scale(name="accuracy", unit="points", share=True)
