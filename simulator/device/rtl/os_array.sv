// Output stationary: activations move right, weights move down, a PE adds up one output and hands it down to the exit below.
// The sequencer keeps the clock of PE(0, 0); PE(r, j) lags r + j cycles behind it. A fold uses the last rows, next to the exit.
// OVERLAP: two accumulators a PE, so that one fold drains while the next one adds up.
// SKIP_IDLE: a partial fold costs the rows and columns that it uses.

module os_pe #(
    parameter bit OVERLAP = 0
) (
    input logic clk,
    input logic [2:0] control_in,  // bank, first term, valid
    input logic signed [7:0] a_in,
    input logic signed [7:0] b_in,
    input logic shift,
    input logic shift_bank,
    input logic signed [31:0] above,
    output logic [2:0] control_out,
    output logic signed [7:0] a_out,
    output logic signed [7:0] b_out,
    output logic signed [31:0] below
);
  logic signed [31:0] sum[2];
  logic signed [31:0] next;
  logic bank, other;
  assign bank = OVERLAP ? control_in[2] : 1'b0;
  assign other = OVERLAP ? shift_bank : 1'b0;
  assign next = (control_in[1] ? 32'sd0 : sum[bank]) + 32'(a_in) * 32'(b_in);
  assign below = sum[other];

  always_ff @(posedge clk) begin
    control_out <= control_in;
    a_out <= a_in;
    b_out <= b_in;
    if (control_in[0]) sum[bank] <= next;
    if (shift) sum[other] <= above;
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
    output logic activation_enable[ROWS],
    output logic [31:0] activation_address[ROWS],
    input logic signed [7:0] activation[ROWS],
    output logic weight_enable[COLS],
    output logic [31:0] weight_address[COLS],
    input logic signed [7:0] weight[COLS],
    output logic output_enable[COLS],
    output logic output_add[COLS],
    output logic [31:0] output_address[COLS],
    output logic signed [31:0] output_data[COLS]
);
  // Sequencer: filter block after filter block, pixel blocks inside.
  typedef enum logic [1:0] {
    IDLE,
    STREAM,  // a term enters in every cycle
    HOLD,  // all terms are in; the other accumulators are not empty yet
    EMPTY  // what is in the array leaves
  } state_t;
  state_t state;
  logic [31:0] t, m0, n0, u, v, emptying;
  logic bank, last, boundary;
  assign u = SKIP_IDLE && m - m0 < ROWS ? m - m0 : ROWS;
  assign v = SKIP_IDLE && n - n0 < COLS ? n - n0 : COLS;
  assign last = m0 + ROWS >= m && n0 + COLS >= n;
  assign boundary = (state == STREAM || state == HOLD) && t + 1 >= k && t + 1 >= emptying;
  assign busy = state != IDLE;

  logic finished;
  logic [31:0] pending, leaving;  // words still to leave; those that leave in this cycle

  // The fold that drains: d words of each column are out.
  logic draining, drain_bank;
  logic [31:0] d, drain_u, drain_v, drain_rows, drain_cols, drain_address;

  always_ff @(posedge clk) begin
    pending <= pending - leaving + (boundary ? u * v : 0);
    if (draining) begin
      d <= d + 1;
      drain_address <= drain_address - n;
      if (d + 1 == drain_u) draining <= 0;
    end
    case (state)
      STREAM, HOLD: begin
        t <= t + 1;
        if (t + 1 == k) state <= HOLD;
        if (boundary) begin
          t <= 0;
          emptying <= OVERLAP ? u : 0;
          bank <= OVERLAP && !bank;
          m0 <= m0 + ROWS >= m ? 0 : m0 + ROWS;
          n0 <= m0 + ROWS >= m ? n0 + COLS : n0;
          state <= OVERLAP && !last ? STREAM : EMPTY;
          finished <= last;
          draining <= 1;
          drain_bank <= bank;
          d <= 0;
          drain_u <= u;
          drain_v <= v;
          drain_rows <= m - m0;
          drain_cols <= n - n0;
          drain_address <= (m0 + u - 1) * n + n0;
        end
      end
      EMPTY: if (pending == leaving) state <= finished ? IDLE : STREAM;
      default: begin
        {t, m0, n0, emptying, pending} <= '0;
        bank <= 0;
        draining <= 0;
        if (start) state <= STREAM;
      end
    endcase
  end

  // Row r does r cycles later what row 0 does, k bytes further on; row_index is its place in the fold.
  logic [2:0] row_control[ROWS];
  logic [31:0] row_address[ROWS];
  logic signed [31:0] row_index[ROWS];
  logic signed [31:0] row_limit[ROWS];
  // Column j does j cycles later what column 0 does.
  logic col_valid[COLS];
  logic [31:0] col_address[COLS];
  logic [31:0] col_limit[COLS];

  logic row_use[ROWS];
  always_comb begin
    row_control[0] = {bank, t == 0, state == STREAM};
    row_index[0] = u - ROWS;
    row_limit[0] = m - m0;
    row_address[0] = (m0 + u - ROWS) * k + t;
    col_valid[0] = state == STREAM;
    col_address[0] = weight_base + n0 * k + t;
    col_limit[0] = n - n0;
    for (int r = 0; r < ROWS; r++) begin
      row_use[r] = row_control[r][0] && row_index[r] >= 0;
      activation_enable[r] = row_use[r] && row_index[r] < row_limit[r];
      activation_address[r] = row_address[r];
    end
    for (int j = 0; j < COLS; j++) begin
      weight_enable[j] = col_valid[j] && j < col_limit[j];
      weight_address[j] = col_address[j];
    end
  end

  // A drain reaches the bottom row ROWS - 1 cycles later, and column j another j cycles later.
  logic fall_valid[ROWS], fall_bank[ROWS], fall_real[ROWS];
  logic signed [31:0] fall_top[ROWS];
  logic [31:0] fall_used[ROWS], fall_limit[ROWS], fall_address[ROWS];
  logic exit_valid[COLS], exit_bank[COLS], exit_real[COLS];
  logic signed [31:0] exit_top[COLS];
  logic [31:0] exit_used[COLS], exit_limit[COLS], exit_address[COLS];
  always_comb begin
    fall_valid[0] = draining;
    fall_bank[0] = drain_bank;
    fall_real[0] = drain_u - 1 - d < drain_rows;
    fall_top[0] = ROWS - drain_u + d;
    fall_used[0] = drain_v;
    fall_limit[0] = drain_cols;
    fall_address[0] = drain_address;
    exit_valid[0] = fall_valid[ROWS-1];
    exit_bank[0] = fall_bank[ROWS-1];
    exit_real[0] = fall_real[ROWS-1];
    exit_top[0] = fall_top[ROWS-1];
    exit_used[0] = fall_used[ROWS-1];
    exit_limit[0] = fall_limit[ROWS-1];
    exit_address[0] = fall_address[ROWS-1];
    leaving = 0;
    for (int j = 0; j < COLS; j++) begin
      if (exit_valid[j] && j < exit_used[j]) leaving = leaving + 1;
      output_enable[j] = exit_valid[j] && exit_real[j] && j < exit_limit[j];
      output_add[j] = 0;
      output_address[j] = exit_address[j];
    end
  end

  for (genvar r = 1; r < ROWS; r++) begin : row_lag
    always_ff @(posedge clk) begin
      row_control[r] <= row_control[r-1];
      row_address[r] <= row_address[r-1] + k;
      row_index[r] <= row_index[r-1] + 1;
      row_limit[r] <= row_limit[r-1];
      fall_valid[r] <= fall_valid[r-1];
      fall_bank[r] <= fall_bank[r-1];
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
      exit_bank[j] <= exit_bank[j-1];
      exit_real[j] <= exit_real[j-1];
      exit_top[j] <= exit_top[j-1];
      exit_used[j] <= exit_used[j-1];
      exit_limit[j] <= exit_limit[j-1];
      exit_address[j] <= exit_address[j-1] + 1;
    end
  end

  logic [2:0] control[ROWS][COLS+1];
  logic signed [7:0] a[ROWS][COLS+1];
  logic signed [7:0] b[ROWS+1][COLS];
  logic signed [31:0] word[ROWS+1][COLS];
  for (genvar r = 0; r < ROWS; r++) begin : left
    assign control[r][0] = {row_control[r][2:1], row_use[r]};
    assign a[r][0] = activation_enable[r] ? activation[r] : 8'sd0;
  end
  for (genvar j = 0; j < COLS; j++) begin : top
    assign b[0][j] = weight_enable[j] ? weight[j] : 8'sd0;
    assign word[0][j] = 0;
    assign output_data[j] = word[ROWS][j];
  end
  for (genvar r = 0; r < ROWS; r++) begin : row
    for (genvar j = 0; j < COLS; j++) begin : col
      os_pe #(OVERLAP) pe (
          .clk,
          .control_in(control[r][j]),
          .a_in(a[r][j]),
          .b_in(b[r][j]),
          .shift(exit_valid[j] && r > exit_top[j]),
          .shift_bank(exit_bank[j]),
          .above(word[r][j]),
          .control_out(control[r][j+1]),
          .a_out(a[r][j+1]),
          .b_out(b[r+1][j]),
          .below(word[r+1][j])
      );
    end
  end
endmodule
