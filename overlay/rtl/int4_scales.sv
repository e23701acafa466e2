`default_nettype none

// The scales (code and z) of two kinds' groups. Written 32 groups of a plane at a time; read as 32 neighbours from any
// multiple of 16 on (keys: a lane, a channel, a group), or one for all lanes (values). Three cycles from index to lanes.
module int4_scales #(
    parameter int unsigned MaxBlockBytes = 131072,
    localparam int unsigned Words = MaxBlockBytes / 1024,
    localparam int unsigned WordBits = $clog2(Words)
) (
    input  wire                     clk_i,
    input  wire  [       2:0]       write_i,        // codes, low z, high z
    input  wire  [WordBits:0]       write_index_i,
    input  wire  [     255:0]       plane_i,
    input  wire                     bank_i,
    input  wire  [WordBits:0]       half_i,         // index of 16 groups
    input  wire  [       3:0]       group_i,        // values: which of them
    input  wire                     key_i,
    output logic [      31:0][ 7:0] code_o,
    output logic [      31:0][11:0] z_o
);
  localparam int unsigned Depth = 2 * Words;

  // Even and odd sixteens apart, so that any two neighbours come together.
  logic [WordBits-1:0] even, odd;
  assign even = half_i[WordBits:1] + WordBits'(half_i[0]);
  assign odd  = half_i[WordBits:1];

  typedef struct packed {
    logic [15:0][7:0] code;
    logic [15:0][7:0] low;
    logic [15:0][3:0] high;
  } scales_t;
  scales_t [1:0] read, read_q;

  for (genvar b = 0; b < 2; ++b) begin : g_bank
    logic [WordBits:0] index;
    assign index = {bank_i, b == 0 ? even : odd};
    ram_1r1w #(
        .Width(128),
        .Depth(Depth)
    ) i_code (
        .clk_i,
        .write_i(write_i[0]),
        .write_index_i,
        .data_i(plane_i[128*b+:128]),
        .read_i(1'b1),
        .read_index_i(index),
        .data_o(read[b].code)
    );
    ram_1r1w #(
        .Width(128),
        .Depth(Depth)
    ) i_low (
        .clk_i,
        .write_i(write_i[1]),
        .write_index_i,
        .data_i(plane_i[128*b+:128]),
        .read_i(1'b1),
        .read_index_i(index),
        .data_o(read[b].low)
    );
    ram_1r1w #(
        .Width(64),
        .Depth(Depth)
    ) i_high (
        .clk_i,
        .write_i(write_i[2]),
        .write_index_i,
        .data_i(plane_i[64*b+:64]),
        .read_i(1'b1),
        .read_index_i(index),
        .data_o(read[b].high)
    );
  end

  logic [1:0] odd_q, key_q;
  logic [1:0][3:0] group_q;
  logic [7:0] one_code;
  logic [11:0] one_z;

  scales_t first, second;  // of a key's lanes; lanes 16 on have the second sixteen
  assign first  = odd_q[1] ? read_q[1] : read_q[0];
  assign second = odd_q[1] ? read_q[0] : read_q[1];

  always_comb begin
    one_code = '0;
    one_z = '0;
    for (int l = 0; l < 16; ++l)
    if (group_q[1] == 4'(l)) begin
      one_code |= first.code[l];
      one_z |= {first.high[l], first.low[l]};
    end
  end

  always_ff @(posedge clk_i) begin
    odd_q   <= {odd_q[0], half_i[0]};
    key_q   <= {key_q[0], key_i};
    group_q <= {group_q[0], group_i};
    read_q  <= read;
    for (int l = 0; l < 16; ++l) begin
      code_o[l] <= key_q[1] ? first.code[l] : one_code;
      code_o[16+l] <= key_q[1] ? second.code[l] : one_code;
      z_o[l] <= key_q[1] ? {first.high[l], first.low[l]} : one_z;
      z_o[16+l] <= key_q[1] ? {second.high[l], second.low[l]} : one_z;
    end
  end
endmodule

`default_nettype wire
