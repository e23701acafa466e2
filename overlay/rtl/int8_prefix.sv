`default_nettype none

// Lines of 32 lanes, some of which begin a run with its delta: to values, the sum of all deltas of the kind up to there
// (modulo 256). A line a cycle; seven cycles. below_o: a value of -128 was among those of K, of V, since clear_i.
module int8_prefix (
    input  wire               clk_i,
    input  wire               rst_i,
    input  wire               valid_i,
    input  wire               begin_i,   // of a kind
    input  wire               second_i,  // of V
    input  wire               last_i,    // of the record, with a line or without
    input  wire  [ 31:0]      mark_i,
    input  wire  [ 31:0][7:0] delta_i,
    input  wire               clear_i,
    output logic              valid_o,
    output logic [255:0]      values_o,
    output logic              last_o,
    output logic [  1:0]      below_o
);
  typedef struct packed {
    logic valid;
    logic first;
    logic second;
    logic last;
  } tag_t;
  tag_t [6:1] tag_q;
  always_ff @(posedge clk_i) begin
    tag_q <= {tag_q[5:1], tag_t'{valid_i, begin_i, second_i, last_i}};
    if (rst_i) for (int i = 1; i < 7; ++i) {tag_q[i].valid, tag_q[i].last} <= '0;
  end

  // A lane without a run of its own takes the one `reach` lanes before.
  function automatic logic [31:0][8:0] spread(input logic [31:0][8:0] lanes, input int unsigned reach);
    for (int l = 0; l < 32; ++l) spread[l] = lanes[l][8] || l < int'(reach) ? lanes[l] : lanes[5'(l-int'(reach))];
  endfunction
  function automatic logic [31:0][7:0] summed(input logic [31:0][7:0] terms, input int unsigned reach);
    for (int l = 0; l < 32; ++l) summed[l] = terms[l] + (l >= int'(reach) ? terms[5'(l-int'(reach))] : 8'd0);
  endfunction

  logic [31:0][8:0] lanes, lanes1_q, lanes2_q;
  logic [31:0][7:0] delta3_q, sum4_q, sum5_q, sum, value6_q;
  logic [7:0] delta_before_q, value_before_q;  // of the line before
  always_comb for (int l = 0; l < 32; ++l) lanes[l] = {mark_i[l], delta_i[l]};
  // Steps of 1, 2, 4, 8, 16 lanes.
  logic [31:0][8:0] over1, over2, over4, over8, over16;
  logic [31:0][7:0] by1, by2, by4, by8, by16;
  always_comb begin
    over1 = spread(lanes, 1);
    over2 = spread(over1, 2);
    over4 = spread(lanes1_q, 4);
    over8 = spread(over4, 8);
    over16 = spread(over8, 16);
    by1 = summed(delta3_q, 1);
    by2 = summed(by1, 2);
    by4 = summed(sum4_q, 4);
    by8 = summed(by4, 8);
    by16 = summed(sum5_q, 16);
  end
  always_comb begin
    sum = by16;
    for (int l = 0; l < 32; ++l) sum[l] += tag_q[5].first ? 8'd0 : value_before_q;
  end

  always_ff @(posedge clk_i) begin
    lanes1_q <= over2;
    lanes2_q <= over16;
    for (int l = 0; l < 32; ++l) delta3_q[l] <= lanes2_q[l][8] ? lanes2_q[l][7:0] : delta_before_q;
    if (tag_q[2].valid && lanes2_q[31][8]) delta_before_q <= lanes2_q[31][7:0];
    sum4_q   <= by2;
    sum5_q   <= by8;
    value6_q <= sum;
    if (tag_q[5].valid) value_before_q <= sum[31];
    for (int l = 0; l < 32; ++l) if (tag_q[6].valid && value6_q[l] == 8'h80) below_o[tag_q[6].second] <= 1'b1;
    values_o <= value6_q;
    valid_o  <= tag_q[6].valid && !rst_i;
    last_o   <= tag_q[6].last && !rst_i;
    if (clear_i) below_o <= '0;
  end
endmodule

`default_nettype wire
