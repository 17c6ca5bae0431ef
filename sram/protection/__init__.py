"""What architects do about weak cells: transforms of a fault map or of the words read, each with what it costs.

A study names a protection by a text, e.g. "secded72" or "spare_columns:1+boost:0.05", and uses it in three steps:

    shield = parse("secded72+spare_columns:1")
    protected, overhead = shield.apply(fault_map)     once for a chip: cells repaired, hardened, boosted, added; costs
    faults = word_faults(protected.geometry, protected.at(voltage))
    shield.read(stored, faults, row)                  words as read: corrected, masked; so read_weights

Where `shield.words_as_stored`, a word is read as it is stored but for its faulty cells: `protected.at(voltage)` then
says it all, in the cells of the map's own geometry. Maps stay nested in voltage through every transform.
"""

from sram.protection.base import Chain, Overhead, Protection, Stage, compose
from sram.protection.check import check_protection
from sram.protection.schemes import Boost, Canary, HardenedMsb, Interleave, Masking, Secded, Spares
from sram.protection.spec import parse
from sram.protection.words import EIGHT_BIT, Layout, WordFaults, faulty_word_share, word_faults

__all__ = ["EIGHT_BIT", "Boost", "Canary", "Chain", "HardenedMsb", "Interleave", "Layout", "Masking", "Overhead"]
__all__ += ["Protection", "Secded", "Spares", "Stage", "WordFaults", "check_protection", "compose", "faulty_word_share"]
__all__ += ["parse", "word_faults"]
