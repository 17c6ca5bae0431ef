from sram.curvefit import fit as _fit_curve
from sram.curvefit import read_counts as read_counts
from sram.energy import MacroEnergy as MacroEnergy
from sram.energy import macro as macro
from sram.energy import minimum_energy as minimum_energy
from sram.errors import InputError as InputError
from sram.failure import FailureCurve as FailureCurve
from sram.failure import curve as curve
from sram.failure import curve_names as curve_names
from sram.faultmap import generate as generate
from sram.geometry import Geometry as Geometry
from sram.mapfile import load as load
from sram.mapfile import save as save
from sram.measured import read as _read_measured
from sram.memory import Chip as Chip
from sram.memory import Memory as Memory
from sram.plugins import allow_imports as allow_imports
from sram.protection import Layout as Layout
from sram.protection import Overhead as Overhead
from sram.protection import Protection as Protection
from sram.protection import check_protection as check_protection
from sram.protection import parse as _parse_protection
from sram.protection import word_faults as word_faults
from sram.structure import Structure as Structure
from sram.structurefit import fit as _fit_structure
from sram.weakcells import FaultMap as FaultMap
from sram.weakcells import Faults as Faults

fit_curve = _fit_curve
fit_structure = _fit_structure
parse_protection = _parse_protection
read_measured = _read_measured
