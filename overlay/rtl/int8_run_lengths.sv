`default_nettype none

// Stages 9 to 18 of int8_delta_rle: 32 levels a cycle to up to 32 pairs (count - 1, delta).
//   9-14   delta: the level before, difference modulo 256, a look at the next beat, changes, first and last change,
//          the open run's count
//   15-18  run lengths: where runs end, their lengths and places, the pairs moved together (two stages)
// A run ends where the next delta differs, after 256, and with its kind. From beat to beat only the open run's count
// is carried: a run that no change has ended goes on through all 32 lanes, so its 256th is simply lane 255 - count.
module int8_run_lengths (
    input  wire               clk_i,
    input  wire               rst_i,
    input  wire               valid_i,
    input  wire               first_i,  // of its kind
    input  wire               last_i,
    input  wire  [31:0][ 7:0] level_i,
    output logic              valid_o,
    output logic              last_o,
    output logic [ 6:0]       bytes_o,
    output logic [31:0][15:0] pairs_o
);
  logic [17:9] valid_q, last_q;
  logic [31:0][7:0] before9_q, level9_q, delta10_q, delta11_q;
  logic [15:12][31:0][7:0] delta_q;
  logic [7:0] newest_q;
  logic leave11;

  assign leave11 = valid_q[11] && (valid_q[10] || last_q[11]);
  always_ff @(posedge clk_i) begin
    valid_q[10:9] <= {valid_q[9], valid_i} & {2{~rst_i}};
    last_q[10:9] <= {last_q[9], last_i};
    level9_q <= level_i;
    before9_q <= {level_i[30:0], first_i ? 8'd0 : newest_q};
    if (valid_i) newest_q <= level_i[31];
    for (int i = 0; i < 32; ++i) delta10_q[i] <= level9_q[i] - before9_q[i];
    // Stage 11 waits for the beat that follows.
    if (valid_q[10]) {last_q[11], delta11_q} <= {last_q[10], delta10_q};
    valid_q[11] <= (valid_q[10] || (valid_q[11] && !leave11)) && !rst_i;
    valid_q[17:12] <= {valid_q[16:12], leave11} & {6{~rst_i}};
    last_q[17:12] <= {last_q[16:12], last_q[11]};
    delta_q <= {delta_q[14:12], delta11_q};
  end

  logic [14:12][31:0] change_q;
  logic [5:0] lead, lead13_q, lead14_q;  // lanes before the first change
  logic [4:0] tail, tail13_q;  // lanes behind the last
  logic any13_q;
  logic [7:0] count_q;  // open run before this beat, modulo 256
  logic [15:14][7:0] before_q;
  logic [31:0] ends, ends15_q;

  always_comb begin
    lead = 6'd32;
    for (int i = 31; i >= 0; --i) if (change_q[12][i]) lead = 6'(i);
    tail = '0;
    for (int i = 0; i < 32; ++i) if (change_q[12][i]) tail = 5'(31 - i);
    for (int i = 0; i < 32; ++i) ends[i] = change_q[14][i] || (8'(i) == 8'd255 - before_q[14] && 6'(i) <= lead14_q);
  end

  always_ff @(posedge clk_i) begin
    for (int i = 0; i < 31; ++i) change_q[12][i] <= delta11_q[i] != delta11_q[i+1];
    change_q[12][31] <= last_q[11] || delta11_q[31] != delta10_q[0];
    change_q[14:13] <= change_q[13:12];
    lead13_q <= lead;
    tail13_q <= tail;
    any13_q <= |change_q[12];
    lead14_q <= lead13_q;
    before_q <= {before_q[14], count_q};
    if (valid_q[13]) count_q <= any13_q ? 8'(tail13_q) : count_q + 8'd32;
    ends15_q <= ends;
    if (rst_i) count_q <= '0;
  end

  // How long the run that ends here is, and how many lanes before it end none  scans over the lanes in steps of 1, 2, 4, 8, 16.
  typedef struct packed {
    logic found;
    logic [4:0] newest;  // the last lane before that ends a run
    logic [5:0] ended;  // runs that end before
  } scan_t;
  typedef struct packed {
    logic valid;
    logic [4:0] skip;  // lanes before that end none
    logic [7:0] delta;
    logic [7:0] length;  // less one
  } item_t;
  scan_t scan[32];
  item_t item[32], item16_q[32], near[32], near17_q[32], far[32];
  logic [5:0] ended16_q, ended17_q;

  always_comb begin
    scan[0] = '0;
    for (int i = 1; i < 32; ++i) scan[i] = {ends15_q[i-1], 5'(i - 1), 6'(ends15_q[i-1])};
    for (int step = 1; step < 32; step *= 2)
    for (int i = 31; i >= step; --i) begin
      if (!scan[i].found) scan[i].newest = scan[i-step].newest;
      scan[i].found |= scan[i-step].found;
      scan[i].ended += scan[i-step].ended;
    end
    for (int i = 0; i < 32; ++i) begin
      item[i].valid  = ends15_q[i];
      item[i].skip   = 5'(6'(i) - scan[i].ended);
      item[i].delta  = delta_q[15][i];
      item[i].length = scan[i].found ? 8'(5'(i - 1) - scan[i].newest) : before_q[15] + 8'(i);
    end
  end

  // Moved by 1, 2, 4, then by 8, 16 lanes: two pairs never meet, since skip does not fall from lane to lane.
  always_comb begin
    near = item16_q;
    for (int k = 0; k < 3; ++k)
    for (int i = 0; i < 32; ++i) begin
      if (near[i].skip[k]) near[i].valid = 1'b0;
      if (i + (1 << k) < 32 && near[5'(i+(1<<k))].valid && near[5'(i+(1<<k))].skip[k]) near[i] = near[5'(i+(1<<k))];
    end
    far = near17_q;
    for (int k = 3; k < 5; ++k)
    for (int i = 0; i < 32; ++i) begin
      if (far[i].skip[k]) far[i].valid = 1'b0;
      if (i + (1 << k) < 32 && far[5'(i+(1<<k))].valid && far[5'(i+(1<<k))].skip[k]) far[i] = far[5'(i+(1<<k))];
    end
  end

  always_ff @(posedge clk_i) begin
    item16_q <= item;
    near17_q <= near;
    for (int i = 0; i < 32; ++i) pairs_o[i] <= {far[i].delta, far[i].length};
  end

  always_ff @(posedge clk_i) begin
    ended16_q <= scan[31].ended + 6'(ends15_q[31]);
    ended17_q <= ended16_q;
    bytes_o <= {ended17_q, 1'b0};
    last_o <= last_q[17];
    valid_o <= valid_q[17] && ended17_q != '0 && !rst_i;
  end
endmodule

`default_nettype wire
