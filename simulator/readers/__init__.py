"""Networks from elsewhere: torch modules, .pt2, ONNX and SCALE-Sim topologies become workloads."""
