from neuralfuse.analysis.calibrate import Calibration as Calibration
from neuralfuse.analysis.calibrate import calibrate as calibrate
from neuralfuse.analysis.each_chip import Yields as Yields
from neuralfuse.analysis.each_chip import each_chip as each_chip
from neuralfuse.analysis.generate import Generation as Generation
from neuralfuse.analysis.generate import generate as generate
from neuralfuse.analysis.optimize import Optimum as Optimum
from neuralfuse.analysis.optimize import optimize as optimize
from neuralfuse.analysis.simulate import Simulation as Simulation
from neuralfuse.analysis.simulate import simulate as simulate
from neuralfuse.data import Dataset as Dataset
from neuralfuse.data import load as _load_data
from neuralfuse.quantized.faulty import FaultyNetwork as FaultyNetwork
from neuralfuse.quantized.metric import Metric as Metric
from neuralfuse.report import Report as Report
from neuralfuse.report import report as report
from neuralfuse.results.tables import read_results as read_results
from neuralfuse.study.config import StudyConfig as StudyConfig
from neuralfuse.study.files import Study as Study
from neuralfuse.study.files import load_study as load_study
from neuralfuse.sweep import sweep as sweep
from neuralfuse.training.generator import train_generator as train_generator
from sram.errors import InputError as InputError
from sram.plugins import allow_imports as allow_imports

load_data = _load_data
__version__: str
