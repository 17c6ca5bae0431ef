// Weight stationary: a PE keeps one weight, activations move right, partial sums move down and leave at the bottom.
// The sequencer keeps the clock of PE(0, 0); PE(r, j) lags r + j cycles behind it. A fold uses the first rows, next to the entry of
// the weights; the rows below add nothing. Partial sums of the folds of one output meet in the output memory.
// OVERLAP: a second weight a PE, loaded while the first one works.
// SKIP_IDLE: a partial fold costs the rows and columns that it uses.

module ws_pe #(
    parameter bit OVERLAP = 0
) (
    input logic clk,
    input logic load,  // without OVERLAP: the column shifts by one; with it: this PE, in its turn
    input logic signed [7:0] weight_in,
    input logic first,  // with OVERLAP: the loaded weight takes over with this activation
    input logic signed [7:0] a,
    input logic signed [31:0] sum_in,
    output logic signed [7:0] weight_out,
    output logic signed [31:0] sum,  // leaves the adder in this cycle
    output logic signed [31:0] sum_out
);
  logic signed [7:0] working, loaded, link, weight;
  assign weight = OVERLAP && first ? loaded : working;
  assign sum = sum_in + 32'(a) * 32'(weight);
  // A load moves as a wave, one row a cycle, like everything else; the link keeps the old word for the row below until its turn.
  assign weight_out = OVERLAP ? link : working;

  always_ff @(posedge clk) begin
    sum_out <= sum;
    working <= OVERLAP ? weight : load ? weight_in : working;
    if (OVERLAP) begin
      link <= load ? loaded : link;
      loaded <= load ? weight_in : loaded;
    end
  end
endmodule

module ws_array #(
    parameter int ROWS = 8,
    parameter int COLS = 8,
    parameter bit OVERLAP = 0,
    parameter bit SKIP_IDLE = 1
) (
    input logic clk,
    input logic start,
    input logic [31:0] m,  // outputs[m][n] = sum over k of activations[m][k] * weights[n][k]
    input logic [31:0] k,
    input logic [31:0] n,
    input logic [31:0] weight_base,
    output logic busy,
    output logic [ROWS-1:0] activation_enable,
    output logic [31:0] activation_address[ROWS],
    input logic [ROWS-1:0][7:0] activation,  // 0 where not enabled
    output logic [COLS-1:0] weight_enable,
    output logic [31:0] weight_address[COLS],
    input logic [COLS-1:0][7:0] weight,
    output logic [COLS-1:0] output_enable,
    output logic [COLS-1:0] output_add,
    output logic [31:0] output_address[COLS],
    output logic signed [31:0] output_data[COLS]
);
  // Sequencer: filter block after filter block, tap blocks inside; weights are loaded one fold ahead of the stream.
  typedef enum logic [1:0] {
    IDLE,
    LOAD,  // weights enter, nothing streams
    STREAM,  // pixels enter; with OVERLAP the next fold's weights too
    EMPTY  // what is in the array leaves
  } state_t;
  state_t state;
  logic [31:0] t, k0, n0, load_k0, load_n0, load_u, load_v;
  logic last, load_last, loading, streaming, loaded, take;
  assign load_u = SKIP_IDLE && k - load_k0 < ROWS ? k - load_k0 : ROWS;
  assign load_v = SKIP_IDLE && n - load_n0 < COLS ? n - load_n0 : COLS;
  assign load_last = load_k0 + ROWS >= k && load_n0 + COLS >= n;
  assign loading = (state == LOAD || (OVERLAP && state == STREAM && !last)) && t < load_u;
  assign streaming = state == STREAM && t < m;
  assign loaded = t + 1 >= load_u;
  assign take = loaded && (state == LOAD || (OVERLAP && state == STREAM && !last && t + 1 >= m));
  assign busy = state != IDLE;

  logic [31:0] v, pending, leaving;  // columns of the fold that streams; words still to leave; those that leave in this cycle

  always_ff @(posedge clk) begin
    t <= t + 1;
    pending <= pending - leaving + (take ? m * load_v : 0);
    if (take) begin
      t <= 0;
      k0 <= load_k0;
      n0 <= load_n0;
      v <= load_v;
      last <= load_last;
      load_k0 <= load_k0 + ROWS >= k ? 0 : load_k0 + ROWS;
      load_n0 <= load_k0 + ROWS >= k ? load_n0 + COLS : load_n0;
    end
    case (state)
      LOAD: if (take) state <= STREAM;
      STREAM, EMPTY:
      if (state == EMPTY || (t + 1 >= m && (!OVERLAP || last))) begin
        t <= 0;
        state <= pending != leaving ? EMPTY : last ? IDLE : LOAD;
      end
      default: begin
        {t, load_k0, load_n0, pending} <= '0;
        if (start) state <= LOAD;
      end
    endcase
  end

  // Row r does r cycles later what row 0 does; column j does j cycles later what column 0 does.
  logic row_valid[ROWS], row_first[ROWS], col_valid[COLS], col_real[COLS];
  logic [31:0] row_address[ROWS], row_limit[ROWS], col_address[COLS], col_limit[COLS];
  // Sums of a pixel reach the bottom row ROWS - 1 cycles later, and column j another j cycles later.
  logic fall_valid[ROWS], fall_add[ROWS], exit_valid[COLS], exit_add[COLS];
  logic [COLS-1:0] col_load, exit_used;
  logic [31:0] fall_used[ROWS], fall_limit[ROWS], fall_address[ROWS];
  logic [31:0] exit_width[COLS], exit_limit[COLS], exit_address[COLS];

  always_comb begin
    row_valid[0] = streaming;
    row_first[0] = streaming && t == 0;
    row_address[0] = t * k + k0;
    row_limit[0] = k - k0;
    col_valid[0] = loading;
    col_real[0] = load_k0 + load_u - 1 - t < k;
    col_address[0] = weight_base + load_n0 * k + load_k0 + load_u - 1 - t;
    col_limit[0] = n - load_n0;
    fall_valid[0] = streaming;
    fall_add[0] = k0 != 0;
    fall_used[0] = v;
    fall_limit[0] = n - n0;
    fall_address[0] = t * n + n0;
    exit_valid[0] = fall_valid[ROWS-1];
    exit_add[0] = fall_add[ROWS-1];
    exit_width[0] = fall_used[ROWS-1];
    exit_limit[0] = fall_limit[ROWS-1];
    exit_address[0] = fall_address[ROWS-1];
    for (int r = 0; r < ROWS; r++) begin
      activation_enable[r] = row_valid[r] && r < row_limit[r];
      activation_address[r] = row_address[r];
    end
    for (int j = 0; j < COLS; j++) begin
      weight_enable[j] = col_valid[j] && col_real[j] && j < col_limit[j];
      weight_address[j] = col_address[j];
      exit_used[j] = exit_valid[j] && j < exit_width[j];
      output_enable[j] = exit_valid[j] && j < exit_limit[j];
      output_add[j] = exit_add[j];
      output_address[j] = exit_address[j];
      col_load[j] = col_valid[j];
    end
    leaving = $countones(exit_used);
  end

  for (genvar r = 1; r < ROWS; r++) begin : row_lag
    always_ff @(posedge clk) begin
      row_valid[r] <= row_valid[r-1];
      row_first[r] <= row_first[r-1];
      row_address[r] <= row_address[r-1] + 1;
      row_limit[r] <= row_limit[r-1];
      fall_valid[r] <= fall_valid[r-1];
      fall_add[r] <= fall_add[r-1];
      fall_used[r] <= fall_used[r-1];
      fall_limit[r] <= fall_limit[r-1];
      fall_address[r] <= fall_address[r-1];
    end
  end
  for (genvar j = 1; j < COLS; j++) begin : col_lag
    always_ff @(posedge clk) begin
      col_valid[j] <= col_valid[j-1];
      col_real[j] <= col_real[j-1];
      col_address[j] <= col_address[j-1] + k;
      col_limit[j] <= col_limit[j-1];
      exit_valid[j] <= exit_valid[j-1];
      exit_add[j] <= exit_add[j-1];
      exit_width[j] <= exit_width[j-1];
      exit_limit[j] <= exit_limit[j-1];
      exit_address[j] <= exit_address[j-1] + 1;
    end
  end

  // Operand registers, a vector a row: what each PE of the row sees in this cycle, and one cycle later its neighbour.
  logic [COLS-1:0][7:0] a[ROWS], a_held[ROWS];
  logic [COLS-1:0] first[ROWS], first_held[ROWS], load[ROWS];  // with OVERLAP the load moves down as a wave
  logic signed [7:0] w[ROWS+1][COLS];
  logic signed [31:0] partial[ROWS+1][COLS];
  for (genvar j = 0; j < COLS; j++) begin : top
    assign w[0][j] = weight[j];
    assign partial[0][j] = 0;
  end
  for (genvar r = 0; r < ROWS; r++) begin : row
    // The cast keeps what fits: the last column's operands go nowhere.
    assign a[r] = (8 * COLS)'({a_held[r], activation[r]});
    assign first[r] = COLS'({first_held[r], row_first[r]});
    always_ff @(posedge clk) begin
      a_held[r] <= a[r];
      first_held[r] <= first[r];
    end
    if (r == 0 || !OVERLAP) begin : at_once
      assign load[r] = col_load;
    end else begin : wave
      always_ff @(posedge clk) load[r] <= load[r-1];
    end
    for (genvar j = 0; j < COLS; j++) begin : col
      logic signed [31:0] sum;
      ws_pe #(OVERLAP) pe (
          .clk,
          .load(load[r][j]),
          .weight_in(w[r][j]),
          .first(first[r][j]),
          .a(a[r][j]),
          .sum_in(partial[r][j]),
          .weight_out(w[r+1][j]),
          .sum,
          .sum_out(partial[r+1][j])
      );
      if (r == ROWS - 1) begin : exit
        assign output_data[j] = sum;
      end
    end
  end
endmodule
