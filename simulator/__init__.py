"""What the accelerator does: workloads, cycles, memory accesses, energy per layer, placement of weights in the SRAM."""
