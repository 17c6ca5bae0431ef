// A systolic array with its memories: weights (with a fault port), activations, outputs. The host fills the memories, says the shape,
// pulses start, and waits until busy is low; cycles counts the cycles in which it was high.
module chip #(
    parameter int ROWS = 8,
    parameter int COLS = 8,
    parameter bit WEIGHT_STATIONARY = 0,
    parameter bit OVERLAP = 0,
    parameter bit SKIP_IDLE = 1,
    parameter int WORDS = 32768,
    parameter int WORD_BITS = 64,
    parameter int ACTIVATIONS = 1 << 22,
    parameter int OUTPUTS = 1 << 20,
    localparam int ADDRESS_BITS = WORDS > 1 ? $clog2(WORDS) : 1
) (
    input logic clk,
    input logic write,
    input logic [ADDRESS_BITS-1:0] address,
    input logic [WORD_BITS-1:0] write_data,
    output logic [WORD_BITS-1:0] read_data,
    input logic fault_write,
    input logic [ADDRESS_BITS-1:0] fault_address,
    input logic [WORD_BITS-1:0] fault_stuck0,
    input logic [WORD_BITS-1:0] fault_stuck1,
    input logic [WORD_BITS-1:0] fault_flip,
    input logic start,
    input logic [31:0] m,
    input logic [31:0] k,
    input logic [31:0] n,
    input logic [31:0] weight_base,
    output logic busy,
    output logic [63:0] cycles,
    output logic [63:0] weight_reads,
    output logic [63:0] activation_reads,
    output logic [63:0] output_writes,
    output logic [63:0] output_reads
);
  // The host reaches these two directly, as it would by DMA.
  logic signed [7:0] activations[ACTIVATIONS]  /*verilator public_flat_rw*/;
  logic signed [31:0] outputs[OUTPUTS]  /*verilator public_flat_rw*/;

  logic activation_enable[ROWS], weight_enable[COLS], output_enable[COLS], output_add[COLS];
  logic [31:0] activation_address[ROWS], weight_address[COLS], output_address[COLS];
  logic signed [7:0] activation[ROWS], weight[COLS];
  logic signed [31:0] output_data[COLS];

  weight_sram #(
      .WORDS(WORDS),
      .WORD_BITS(WORD_BITS),
      .PORTS(COLS)
  ) weights (
      .byte_address(weight_address),
      .byte_enable(weight_enable),
      .byte_data(weight),
      .*
  );

  if (WEIGHT_STATIONARY) begin : ws
    ws_array #(ROWS, COLS, OVERLAP, SKIP_IDLE) array (.*);
  end else begin : os
    os_array #(ROWS, COLS, OVERLAP, SKIP_IDLE) array (.*);
  end

  logic [63:0] weights_read, activations_read, outputs_written, outputs_read;
  always_comb begin
    {weights_read, activations_read, outputs_written, outputs_read} = '0;
    for (int r = 0; r < ROWS; r++) begin
      activation[r] = activation_enable[r] ? activations[activation_address[r]] : 8'sd0;
      if (activation_enable[r]) activations_read = activations_read + 1;
    end
    for (int j = 0; j < COLS; j++) begin
      if (weight_enable[j]) weights_read = weights_read + 1;
      if (output_enable[j]) outputs_written = outputs_written + 1;
      if (output_enable[j] && output_add[j]) outputs_read = outputs_read + 1;
    end
  end

  always_ff @(posedge clk) begin
    if (start && !busy) begin
      {cycles, weight_reads, activation_reads, output_writes, output_reads} <= '0;
    end else if (busy) begin
      cycles <= cycles + 1;
      weight_reads <= weight_reads + weights_read;
      activation_reads <= activation_reads + activations_read;
      output_writes <= output_writes + outputs_written;
      output_reads <= output_reads + outputs_read;
    end
  end

  for (genvar j = 0; j < COLS; j++) begin : port
    always_ff @(posedge clk) begin
      if (output_enable[j]) begin
        outputs[output_address[j]] <= output_data[j] + (output_add[j] ? outputs[output_address[j]] : 32'sd0);
      end
    end
  end
endmodule
