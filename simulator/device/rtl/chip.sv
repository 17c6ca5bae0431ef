// A systolic array with its memories: weights and outputs (with a fault port each), activations. The host fills the memories, says the shape,
// pulses start, and waits until busy is low; cycles counts the cycles in which it was high.
module chip #(
    parameter int ROWS = 8,
    parameter int COLS = 8,
    parameter bit WEIGHT_STATIONARY = 0,
    parameter bit OVERLAP = 0,
    parameter bit SKIP_IDLE = 1,
    parameter int WORDS = 32768,
    parameter int WORD_BITS = 64,
    parameter int ACTIVATIONS = 1 << 22,  // bytes; a multiple of 8
    parameter int OUTPUTS = 1 << 20,
    localparam int ADDRESS_BITS = WORDS > 1 ? $clog2(WORDS) : 1,
    localparam int LINE_BITS = $clog2(ACTIVATIONS / 8),
    localparam int OUTPUT_BITS = $clog2(OUTPUTS)
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
    input logic sum_fault_write,
    input logic [OUTPUT_BITS-1:0] sum_address,
    input logic [31:0] sum_stuck0,
    input logic [31:0] sum_stuck1,
    input logic [31:0] sum_flip,
    input logic activation_write,
    input logic [LINE_BITS-1:0] line,
    input logic [63:0] line_data,
    input logic start,
    input logic [31:0] shape_m,
    input logic [31:0] shape_k,
    input logic [31:0] shape_n,
    input logic [31:0] base,
    output logic busy,
    output logic [63:0] cycles,
    output logic [63:0] weight_reads,
    output logic [63:0] activation_reads,
    output logic [63:0] output_writes,
    output logic [63:0] output_reads
);
  // Registered, so that nothing behind them hangs on the chip's inputs (and is not computed twice a cycle in simulation).
  logic [31:0] m, k, n, weight_base;
  always_ff @(posedge clk) begin
    if (start) {m, k, n, weight_base} <= {shape_m, shape_k, shape_n, base};
  end

  logic [63:0] activations[ACTIVATIONS/8];  // lines of eight bytes
  logic signed [31:0] outputs[OUTPUTS]  /*verilator public_flat_rd*/;  // the host reads them as by DMA
  always_ff @(posedge clk) if (activation_write) activations[line] <= line_data;

  // What partial sums read when the next fold is added to them. Whole sums leave as they are: who reads them is not in the array.
  logic [31:0] output_stuck0[OUTPUTS], output_stuck1[OUTPUTS], output_flip[OUTPUTS];
  always_ff @(posedge clk) begin
    if (sum_fault_write) begin
      output_stuck0[sum_address] <= sum_stuck0;
      output_stuck1[sum_address] <= sum_stuck1;
      output_flip[sum_address] <= sum_flip;
    end
  end

  function automatic logic signed [31:0] waiting(input logic [OUTPUT_BITS-1:0] at);
    return ((outputs[at] & ~output_stuck0[at]) | output_stuck1[at]) ^ output_flip[at];
  endfunction

  logic [ROWS-1:0] activation_enable;
  logic [COLS-1:0] weight_enable, output_enable, output_add;
  logic [31:0] activation_address[ROWS], weight_address[COLS], output_address[COLS];
  logic [ROWS-1:0][7:0] activation;
  logic [COLS-1:0][7:0] weight;
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

  always_comb begin
    for (int r = 0; r < ROWS; r++) begin
      activation[r] = 0;
      if (activation_enable[r]) begin
        activation[r] = 8'(activations[LINE_BITS'(activation_address[r]/8)] >> (8 * activation_address[r][2:0]));
      end
    end
  end

  always_ff @(posedge clk) begin
    if (start && !busy) begin
      {cycles, weight_reads, activation_reads, output_writes, output_reads} <= '0;
    end else if (busy) begin
      cycles <= cycles + 1;
      weight_reads <= weight_reads + 64'($countones(weight_enable));
      activation_reads <= activation_reads + 64'($countones(activation_enable));
      output_writes <= output_writes + 64'($countones(output_enable));
      output_reads <= output_reads + 64'($countones(output_enable & output_add));
    end
  end

  for (genvar j = 0; j < COLS; j++) begin : port
    always_ff @(posedge clk) begin
      if (output_enable[j]) begin
        outputs[output_address[j]] <= output_data[j] + (output_add[j] ? waiting(OUTPUT_BITS'(output_address[j])) : 32'sd0);
      end
    end
  end
endmodule
