from neuralfuse.analysis.simulate import Simulation as Simulation
from neuralfuse.analysis.simulate import simulate as simulate
from sram.errors import InputError as InputError

__version__: str
