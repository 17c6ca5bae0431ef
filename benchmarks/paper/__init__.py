"""The NeuralFuse paper's experiments as study files, its tables beside ours: `python -m benchmarks.paper --help`."""
