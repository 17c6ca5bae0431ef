"""Input transforms: NeuralFuse generators, numbers for every pixel, one for every voltage."""
