"""The systolic array: cycles, memory accesses and traces of a layer under a dataflow."""
