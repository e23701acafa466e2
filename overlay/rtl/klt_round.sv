`default_nettype none

// From sums to values, one row of the array a cycle, five stages, every token beside the others.
// Encoding: q = sign(a) * ((|a| + rounding) >> shift), and whether one of the row is beyond its limit; if so, the
// values mean nothing. Decoding: (a + half) >> shift, half = 1 << shift >> 1, plus the mean, within
// +-KLT_FIXED_MAX. A shift is 30 at most.
module klt_round
  import speckv_pkg::*;
#(
    parameter int unsigned Tokens = KltMacTokens
) (
    input  wire                     clk_i,
    input  wire                     rst_i,
    input  wire  [Tokens-1:0][31:0] sum_i,
    input  wire                     decodes_i,
    input  wire  [       4:0]       shift_i,
    input  wire  [      30:0]       offset_i,   // rounding, or the mean
    input  wire  [      14:0]       limit_i,
    input  wire                     last_i,
    input  wire                     valid_i,
    output logic                    ready_o,
    output logic [Tokens-1:0][16:0] value_o,
    output logic                    beyond_o,
    output logic                    last_o,
    output logic                    valid_o,
    input  wire                     ready_i
);
  localparam int unsigned Stages = 5;
  typedef struct packed {
    logic decodes;
    logic [2:0] fine;  // shift, less whole eights
    logic [16:0] mean;
    logic [14:0] limit;
    logic last;
  } row_t;

  logic [Stages:1] valid_q;
  row_t row_q[1:4];
  logic [1:0] coarse_q;
  logic [Tokens-1:0] negative1_q, negative2_q, negative3_q;
  logic [Tokens-1:0] zero1_q, zero2_q, zero3_q;  // an encoder's a = 0 has no sign: q = 0, whatever the rounding
  logic signed [Tokens-1:0][32:0] moved_q, coarse_shifted_q, shifted_q;
  logic signed [Tokens-1:0][33:0] finished_q;
  logic [Tokens-1:0] over_q;
  logic [31:0] added;
  logic [Tokens-1:0] flips;

  assign ready_o = !valid_q[Stages] || ready_i;
  assign valid_o = valid_q[Stages];
  assign added   = decodes_i ? (32'd1 << shift_i) >> 1 : 32'(offset_i);

  always_comb begin
    for (int t = 0; t < Tokens; ++t) flips[t] = !decodes_i && sum_i[t][31];
  end

  always_ff @(posedge clk_i) begin
    if (ready_o) begin
      valid_q <= {valid_q[Stages-1:1], valid_i};

      // 1: |a| + rounding, or a + half.
      row_q[1].decodes <= decodes_i;
      row_q[1].fine <= shift_i[2:0];
      row_q[1].mean <= offset_i[16:0];
      row_q[1].limit <= limit_i;
      row_q[1].last <= last_i;
      coarse_q <= shift_i[4:3];
      for (int t = 0; t < Tokens; ++t) begin
        negative1_q[t] <= flips[t];
        zero1_q[t] <= !decodes_i && sum_i[t] == '0;
        moved_q[t] <= 33'(added) + ({sum_i[t][31], sum_i[t]} ^ {33{flips[t]}}) + 33'(flips[t]);
      end

      // 2, 3: shifted.
      row_q[2] <= row_q[1];
      negative2_q <= negative1_q;
      zero2_q <= zero1_q;
      row_q[3] <= row_q[2];
      negative3_q <= negative2_q;
      zero3_q <= zero2_q;
      for (int t = 0; t < Tokens; ++t) begin
        coarse_shifted_q[t] <= signed'(moved_q[t]) >>> {coarse_q, 3'd0};
        shifted_q[t] <= signed'(coarse_shifted_q[t]) >>> row_q[2].fine;
      end

      // 4: sign, or mean.
      row_q[4] <= row_q[3];
      for (int t = 0; t < Tokens; ++t) begin
        over_q[t] <= !zero3_q[t] && signed'(shifted_q[t]) > signed'(33'(row_q[3].limit));
        finished_q[t] <= (34'(signed'(shifted_q[t])) ^ {34{negative3_q[t]}})
            + (row_q[3].decodes ? 34'(signed'(row_q[3].mean)) : 34'(negative3_q[t]));
        if (zero3_q[t]) finished_q[t] <= '0;
      end

      // 5: within bounds.
      last_o   <= row_q[4].last;
      beyond_o <= !row_q[4].decodes && over_q != '0;
      for (int t = 0; t < Tokens; ++t) begin
        value_o[t] <= finished_q[t][16:0];
        if (row_q[4].decodes && signed'(finished_q[t]) > signed'(34'(KltFixedMax))) begin
          value_o[t] <= 17'(KltFixedMax);
        end
        if (row_q[4].decodes && signed'(finished_q[t]) < -signed'(34'(KltFixedMax))) begin
          value_o[t] <= -17'(KltFixedMax);
        end
      end
    end
    if (rst_i) valid_q <= '0;
  end
endmodule

`default_nettype wire
