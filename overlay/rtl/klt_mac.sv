`default_nettype none

// The multiply-accumulate array of scheme `klt`, both directions: MacRows rows of a transform times MacTokens
// tokens, 16 values of each a cycle. A tile is the beats up to tlast; behind it come its sums, a row a cycle,
// rounded as klt_round says. So tiles of MacRows beats and more keep the array busy every cycle. A transform's last
// rows may be fewer: whatever is given in place of the others, who reads drops their values.
//
// Sums are 32 bits: a codebook is checked to keep every one below 2**31, partial ones included. The array never
// stops: beats are taken only while there is room for all sums that may be on their way.
module klt_mac
  import speckv_pkg::*;
#(
    parameter int unsigned MacRows = KltMacRows,
    parameter int unsigned MacTokens = KltMacTokens,
    parameter int unsigned InputBits = 16,  // of tokens; an encoder's are 14 bits, a decoder's 16
    localparam int unsigned Values = 16
) (
    input  wire                                             clk_i,
    input  wire                                             rst_i,
    // 16 columns of all rows and tokens; the last beat of a tile brings what its rows are rounded with.
    input  wire  [  MacRows-1:0][Values-1:0][         15:0] rows_tdata_i,
    input  wire  [MacTokens-1:0][Values-1:0][InputBits-1:0] tokens_tdata_i,
    input  wire                                             decodes_i,
    input  wire  [  MacRows-1:0][       4:0]                shift_i,
    input  wire  [  MacRows-1:0][      30:0]                offset_i,         // rounding, or the mean
    input  wire  [  MacRows-1:0][      14:0]                limit_i,          // of |q|
    input  wire                                             tlast_i,
    input  wire                                             tvalid_i,
    output logic                                            tready_o,
    // A row of a tile: its values, and whether one of an encoder is beyond its limit.
    output logic [MacTokens-1:0][      16:0]                values_tdata_o,
    output logic                                            values_beyond_o,
    output logic                                            values_tlast_o,   // of the tile
    output logic                                            values_tvalid_o,
    input  wire                                             values_tready_i
);
  localparam int unsigned Latency = Values + 3;  // from a beat to the accumulators
  localparam int unsigned Tiles = 32;  // whose sums may wait, those on their way included
  localparam int unsigned RowWidth = 5 + 31 + 15;
  localparam int unsigned RowBits = (MacRows > 1) ? $clog2(MacRows) : 1;

  logic taken, tile_taken;
  logic [$clog2(Tiles):0] tiles_q;
  logic drained;

  assign tready_o = !tiles_q[$clog2(Tiles)];
  assign taken = tvalid_i && tready_o;
  assign tile_taken = taken && tlast_i;

  // ---- the array

  logic [MacRows-1:0][Values-1:0][15:0] rows;
  logic [MacTokens-1:0][Values-1:0][InputBits-1:0] tokens;
  logic [MacRows-1:0][MacTokens-1:0][31:0] sum, total_q;
  logic [Latency:1] valid_q, last_q;
  logic fresh_q;  // the accumulators begin anew

  for (genvar r = 0; r < MacRows; ++r) begin : g_row
    klt_skew #(
        .Width(16),
        .Count(Values)
    ) skew (
        .clk_i,
        .data_i(rows_tdata_i[r]),
        .data_o(rows[r])
    );
    for (genvar t = 0; t < MacTokens; ++t) begin : g_dot
      klt_dot #(
          .InputBits(InputBits),
          .Count(Values)
      ) dot (
          .clk_i,
          .row_i  (rows[r]),
          .token_i(tokens[t]),
          .sum_o  (sum[r][t])
      );
    end
  end
  for (genvar t = 0; t < MacTokens; ++t) begin : g_token
    klt_skew #(
        .Width(InputBits),
        .Count(Values)
    ) skew (
        .clk_i,
        .data_i(tokens_tdata_i[t]),
        .data_o(tokens[t])
    );
  end

  always_ff @(posedge clk_i) begin
    valid_q <= {valid_q[Latency-1:1], taken};
    last_q  <= {last_q[Latency-1:1], tile_taken};
    if (valid_q[Latency-1]) begin
      fresh_q <= last_q[Latency-1];
      for (int r = 0; r < MacRows; ++r) begin
        for (int t = 0; t < MacTokens; ++t) total_q[r][t] <= (fresh_q ? '0 : total_q[r][t]) + sum[r][t];
      end
    end
    tiles_q <= tiles_q + ($clog2(Tiles) + 1)'(tile_taken) - ($clog2(Tiles) + 1)'(drained);
    if (rst_i) begin
      valid_q <= '0;
      last_q  <= '0;
      fresh_q <= 1'b1;
      tiles_q <= '0;
    end
  end

  // ---- sums and parameters of tiles, taken apart row by row

  logic [MacRows-1:0][MacTokens-1:0][31:0] waiting_sums;
  logic [MacRows-1:0][RowWidth-1:0] parameters, waiting_parameters;
  logic waiting, waiting_decodes, parameters_wait, round_ready, row_last;
  logic [RowBits-1:0] row_q;
  logic [1:0] readies;
  logic [$clog2(Tiles):0] sums_count, parameters_count;

  for (genvar r = 0; r < MacRows; ++r) begin : g_parameters
    assign parameters[r] = {limit_i[r], offset_i[r], shift_i[r]};
  end
  assign row_last = row_q == RowBits'(MacRows - 1);
  assign drained  = waiting && round_ready && row_last;

  fifo #(
      .Width(MacRows * MacTokens * 32),
      .Depth(Tiles)
  ) sums (
      .clk_i,
      .rst_i,
      .data_i (total_q),
      .valid_i(last_q[Latency]),
      .ready_o(readies[0]),
      .data_o (waiting_sums),
      .valid_o(waiting),
      .ready_i(drained),
      .count_o(sums_count)
  );
  fifo #(
      .Width(MacRows * RowWidth + 1),
      .Depth(Tiles)
  ) settings (
      .clk_i,
      .rst_i,
      .data_i ({decodes_i, parameters}),
      .valid_i(tile_taken),
      .ready_o(readies[1]),
      .data_o ({waiting_decodes, waiting_parameters}),
      .valid_o(parameters_wait),
      .ready_i(drained),
      .count_o(parameters_count)
  );

  always_ff @(posedge clk_i) begin
    if (waiting && round_ready) row_q <= row_last ? '0 : row_q + 1'b1;
    if (rst_i) row_q <= '0;
  end

  logic [ 4:0] shift;
  logic [30:0] offset;
  logic [14:0] limit;
  assign {limit, offset, shift} = waiting_parameters[row_q];

  klt_round #(
      .Tokens(MacTokens)
  ) rounding (
      .clk_i,
      .rst_i,
      .sum_i(waiting_sums[row_q]),
      .decodes_i(waiting_decodes),
      .shift_i(shift),
      .offset_i(offset),
      .limit_i(limit),
      .last_i(row_last),
      .valid_i(waiting),
      .ready_o(round_ready),
      .value_o(values_tdata_o),
      .beyond_o(values_beyond_o),
      .last_o(values_tlast_o),
      .valid_o(values_tvalid_o),
      .ready_i(values_tready_i)
  );

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (!rst_i && last_q[Latency] && !readies[0]) $fatal(1, "%0d tiles wait: no room for more", sums_count);
    if (!rst_i && tile_taken && !readies[1]) $fatal(1, "%0d tiles' parameters wait", parameters_count);
    if (!rst_i && waiting && !parameters_wait) $fatal(1, "sums without parameters");
  end
`endif
endmodule

`default_nettype wire
