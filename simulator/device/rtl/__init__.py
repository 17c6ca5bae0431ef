"""The chip in SystemVerilog, built by Verilator."""
