// Weight memory with a fault port: a cell of `stuck0` reads 0, of `stuck1` reads 1, of `flip` reads the opposite of what is
// stored. What is stored never changes by a fault: with the masks cleared (the supply back at nominal) it reads right again.
// PORTS byte-wide read ports, one for each column of the array, as a memory with a bank per column has without conflicts.
module weight_sram #(
    parameter int WORDS = 32768,
    parameter int WORD_BITS = 64,
    parameter int PORTS = 8,
    localparam int LANES = WORD_BITS / 8,
    localparam int ADDRESS_BITS = WORDS > 1 ? $clog2(WORDS) : 1
) (
    input logic clk,
    // host: one word a cycle
    input logic write,
    input logic [ADDRESS_BITS-1:0] address,
    input logic [WORD_BITS-1:0] write_data,
    output logic [WORD_BITS-1:0] read_data,
    // fault port: the three masks of one word
    input logic fault_write,
    input logic [ADDRESS_BITS-1:0] fault_address,
    input logic [WORD_BITS-1:0] fault_stuck0,
    input logic [WORD_BITS-1:0] fault_stuck1,
    input logic [WORD_BITS-1:0] fault_flip,
    // array: byte addresses
    input logic [PORTS-1:0] byte_enable,
    input logic [31:0] byte_address[PORTS],
    output logic [PORTS-1:0][7:0] byte_data  // 0 where not enabled
);
  logic [WORD_BITS-1:0] cells[WORDS];
  logic [WORD_BITS-1:0] stuck0[WORDS];
  logic [WORD_BITS-1:0] stuck1[WORDS];
  logic [WORD_BITS-1:0] flip[WORDS];

  function automatic logic [WORD_BITS-1:0] seen(input logic [ADDRESS_BITS-1:0] at);
    return ((cells[at] & ~stuck0[at]) | stuck1[at]) ^ flip[at];
  endfunction

  always_ff @(posedge clk) begin
    if (write) cells[address] <= write_data;
    if (fault_write) begin
      stuck0[fault_address] <= fault_stuck0;
      stuck1[fault_address] <= fault_stuck1;
      flip[fault_address] <= fault_flip;
    end
  end

  always_comb begin
    read_data = seen(address);
    for (int p = 0; p < PORTS; p++) begin
      byte_data[p] = 0;
      if (byte_enable[p]) begin
        byte_data[p] = 8'(seen(ADDRESS_BITS'(byte_address[p] / LANES)) >> (8 * (byte_address[p] % LANES)));
      end
    end
  end
endmodule
