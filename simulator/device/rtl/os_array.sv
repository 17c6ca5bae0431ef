// Output stationary: activations move right, weights move down, a PE adds up one output and hands it down to the exit below.
// The sequencer keeps the clock of PE(0, 0); PE(r, j) lags r + j cycles behind it. A fold uses the last rows, next to the exit.
// OVERLAP: a second accumulator a PE, from which one fold leaves while the next one adds up.
// SKIP_IDLE: a partial fold costs the rows and columns that it uses.

module os_pe #(
    parameter bit OVERLAP = 0
) (
    input logic clk,
    input logic valid,
    input logic first,
    input logic last,
    input logic signed [7:0] a,
    input logic signed [7:0] b,
    input logic shift,
    input logic signed [31:0] above,
    output logic signed [31:0] below
);
  logic signed [31:0] sum, next, result;
  assign next = (first ? 32'sd0 : sum) + 32'(a) * 32'(b);
  assign below = OVERLAP ? result : sum;

  always_ff @(posedge clk) begin
    sum <= !OVERLAP && shift ? above : valid ? next : sum;
    if (OVERLAP) result <= valid && last ? next : shift ? above : result;
  end
endmodule

module os_array #(
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
  // Sequencer: filter block after filter block, pixel blocks inside.
  typedef enum logic [1:0] {
    IDLE,
    STREAM,  // a term enters in every cycle
    HOLD,  // all terms are in; the fold before still leaves
    EMPTY  // what is in the array leaves
  } state_t;
  state_t state;
  logic [31:0] t, m0, n0, u, v;
  logic last_row, last_fold, full, next_fold, finished;
  assign u = SKIP_IDLE && m - m0 < ROWS ? m - m0 : ROWS;
  assign v = SKIP_IDLE && n - n0 < COLS ? n - n0 : COLS;
  assign last_row = m0 + ROWS >= m;
  assign last_fold = last_row && n0 + COLS >= n;
  assign full = state == STREAM && t + 1 == k;
  assign next_fold = OVERLAP && (full || state == HOLD) && !last_fold && t + 1 >= u;
  assign busy = state != IDLE;

  // The fold that leaves: d words of each column are out. `pending` words are still to leave, `leaving` in this cycle.
  logic draining;
  logic [31:0] d, drain_u, drain_v, drain_rows, drain_cols, drain_address, pending, leaving;

  always_ff @(posedge clk) begin
    t <= t + 1;
    pending <= pending - leaving + (full ? u * v : 0);
    if (draining) begin
      d <= d + 1;
      drain_address <= drain_address - n;
      draining <= d + 1 != drain_u;
    end
    if (full) begin
      draining <= 1;
      d <= 0;
      drain_u <= u;
      drain_v <= v;
      drain_rows <= m - m0;
      drain_cols <= n - n0;
      drain_address <= (m0 + u - 1) * n + n0;
    end
    if (next_fold || (full && !OVERLAP)) begin
      m0 <= last_row ? 0 : m0 + ROWS;
      n0 <= last_row ? n0 + COLS : n0;
    end
    case (state)
      STREAM, HOLD: begin
        if (full) finished <= last_fold;
        if (next_fold) begin
          t <= 0;
          state <= STREAM;
        end else if (full) state <= OVERLAP && !last_fold ? HOLD : EMPTY;
      end
      EMPTY:
      if (pending == leaving) begin
        t <= 0;
        state <= finished ? IDLE : STREAM;
      end
      default: begin
        {t, m0, n0, pending} <= '0;
        draining <= 0;
        if (start) state <= STREAM;
      end
    endcase
  end

  // Row r does r cycles later what row 0 does, k bytes further on; row_index is its place in the fold.
  logic row_valid[ROWS], row_first[ROWS], row_last[ROWS];
  logic [ROWS-1:0] row_use;
  logic [31:0] row_address[ROWS];
  logic signed [31:0] row_index[ROWS];
  logic signed [31:0] row_limit[ROWS];
  // Column j does j cycles later what column 0 does.
  logic col_valid[COLS];
  logic [31:0] col_address[COLS];
  logic [31:0] col_limit[COLS];
  // A drain reaches the bottom row ROWS - 1 cycles later, and column j another j cycles later. Rows below top shift; none
  // where nothing drains. A word is real if it is one of the product, not of an idle row.
  logic fall_valid[ROWS], fall_real[ROWS];
  logic signed [31:0] fall_top[ROWS];
  logic [31:0] fall_used[ROWS], fall_limit[ROWS], fall_address[ROWS];
  logic exit_valid[COLS], exit_real[COLS];
  logic [COLS-1:0] exit_used;
  logic signed [31:0] exit_top[COLS];
  logic [31:0] exit_width[COLS], exit_limit[COLS], exit_address[COLS];

  always_comb begin
    row_valid[0] = state == STREAM;
    row_first[0] = t == 0;
    row_last[0] = t + 1 == k;
    row_index[0] = u - ROWS;
    row_limit[0] = m - m0;
    row_address[0] = (m0 + u - ROWS) * k + t;
    col_valid[0] = state == STREAM;
    col_address[0] = weight_base + n0 * k + t;
    col_limit[0] = n - n0;
    fall_valid[0] = draining;
    fall_real[0] = drain_u - 1 - d < drain_rows;
    fall_top[0] = draining ? ROWS - drain_u + d : ROWS;
    fall_used[0] = drain_v;
    fall_limit[0] = drain_cols;
    fall_address[0] = drain_address;
    exit_valid[0] = fall_valid[ROWS-1];
    exit_real[0] = fall_real[ROWS-1];
    exit_top[0] = fall_top[ROWS-1];
    exit_width[0] = fall_used[ROWS-1];
    exit_limit[0] = fall_limit[ROWS-1];
    exit_address[0] = fall_address[ROWS-1];
    for (int r = 0; r < ROWS; r++) begin
      row_use[r] = row_valid[r] && row_index[r] >= 0;
      activation_enable[r] = row_use[r] && row_index[r] < row_limit[r];
      activation_address[r] = row_address[r];
    end
    for (int j = 0; j < COLS; j++) begin
      weight_enable[j] = col_valid[j] && j < col_limit[j];
      weight_address[j] = col_address[j];
      exit_used[j] = exit_valid[j] && j < exit_width[j];
      output_enable[j] = exit_valid[j] && exit_real[j] && j < exit_limit[j];
      output_address[j] = exit_address[j];
    end
    output_add = 0;
    leaving = $countones(exit_used);
  end

  for (genvar r = 1; r < ROWS; r++) begin : row_lag
    always_ff @(posedge clk) begin
      row_valid[r] <= row_valid[r-1];
      row_first[r] <= row_first[r-1];
      row_last[r] <= row_last[r-1];
      row_address[r] <= row_address[r-1] + k;
      row_index[r] <= row_index[r-1] + 1;
      row_limit[r] <= row_limit[r-1];
      fall_valid[r] <= fall_valid[r-1];
      fall_real[r] <= fall_real[r-1];
      fall_top[r] <= fall_top[r-1];
      fall_used[r] <= fall_used[r-1];
      fall_limit[r] <= fall_limit[r-1];
      fall_address[r] <= fall_address[r-1];
    end
  end
  for (genvar j = 1; j < COLS; j++) begin : col_lag
    always_ff @(posedge clk) begin
      col_valid[j] <= col_valid[j-1];
      col_address[j] <= col_address[j-1] + k;
      col_limit[j] <= col_limit[j-1];
      exit_valid[j] <= exit_valid[j-1];
      exit_real[j] <= exit_real[j-1];
      exit_top[j] <= exit_top[j-1];
      exit_width[j] <= exit_width[j-1];
      exit_limit[j] <= exit_limit[j-1];
      exit_address[j] <= exit_address[j-1] + 1;
    end
  end

  // Operand registers, a vector a row: what each PE of the row sees in this cycle, and one cycle later its neighbour.
  logic [COLS-1:0][7:0] a[ROWS], b[ROWS], a_held[ROWS], b_held[ROWS];
  logic [COLS-1:0] valid[ROWS], first[ROWS], last[ROWS], valid_held[ROWS], first_held[ROWS], last_held[ROWS];
  logic signed [31:0] word[ROWS+1][COLS];
  for (genvar j = 0; j < COLS; j++) begin : top
    assign word[0][j] = 0;
    assign output_data[j] = word[ROWS][j];
  end
  for (genvar r = 0; r < ROWS; r++) begin : row
    // The cast keeps what fits: the last column's operands go nowhere.
    assign a[r] = (8 * COLS)'({a_held[r], activation[r]});
    assign valid[r] = COLS'({valid_held[r], row_use[r]});
    assign first[r] = COLS'({first_held[r], row_first[r]});
    assign last[r] = COLS'({last_held[r], row_last[r]});
    if (r == 0) begin : entry
      assign b[r] = weight;
    end else begin : inner
      assign b[r] = b_held[r-1];
    end
    always_ff @(posedge clk) begin
      a_held[r] <= a[r];
      b_held[r] <= b[r];
      valid_held[r] <= valid[r];
      first_held[r] <= first[r];
      last_held[r] <= last[r];
    end
    for (genvar j = 0; j < COLS; j++) begin : col
      os_pe #(OVERLAP) pe (
          .clk,
          .valid(valid[r][j]),
          .first(first[r][j]),
          .last(last[r][j]),
          .a(a[r][j]),
          .b(b[r][j]),
          .shift(r > exit_top[j]),
          .above(word[r][j]),
          .below(word[r+1][j])
      );
    end
  end
endmodule
