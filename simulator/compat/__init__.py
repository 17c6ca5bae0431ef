"""Others' conventions behind a name: SCALE-Sim's counting, the NeuralFuse paper's."""
