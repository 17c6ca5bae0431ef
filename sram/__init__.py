"""What the silicon does: failure probability, persistent fault maps, faults in words, protections, energy.

>>> import sram
>>> chip = sram.generate(7, sram.Geometry(banks=4), "ibm14", "column", voltage_floor=0.8)
>>> protected, overhead = sram.parse_protection("secded72").apply(chip)
>>> chip.count(0.85) > 0, overhead.storage
(True, 1.125)

`dir(sram)` lists the public names; each is loaded when it is first used. `sram.protection`, `sram.structure` and
`sram.energy` are modules: their functions are `parse_protection`, `Structure` and `macro` here.
"""

from sram.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
