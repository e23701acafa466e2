`default_nettype none

// Which keys a TLB holds, and where: three steps of a pipeline that moves on with `advance_i`. In the first the tags of
// a set are read, in the second compared with a key (or with its request id alone), in the third the ways found are
// used, filled or forgotten. Who fills or forgets lets no step of the same set follow that is before its third then.
module tlb_tags
  import speckv_pkg::*;
#(
    parameter  int unsigned Entries = 256,
    parameter  int unsigned Ways    = 4,
    localparam int unsigned Sets    = Entries / Ways,
    localparam int unsigned SetBits = $clog2(Sets),
    localparam int unsigned WayBits = $clog2(Ways)
) (
    input  wire                    clk_i,
    input  wire                    rst_i,
    input  wire                    advance_i,
    input  wire  [    SetBits-1:0] read_set_i,       // first step
    input  wire  [    SetBits-1:0] compare_set_i,    // second
    input  wire  [AddressBits-1:0] compare_key_i,
    input  wire                    whole_request_i,
    input  wire  [    SetBits-1:0] set_i,            // third
    input  wire  [AddressBits-1:0] key_i,
    input  wire                    use_i,            // the way found, if any, was used
    input  wire                    fill_i,           // way_o holds key_i from now on
    input  wire                    forget_i,         // all ways found
    input  wire                    clear_i,          // all there is
    output logic                   found_o,
    output logic [    WayBits-1:0] way_o             // the one found, else the one to fill
);
  localparam logic [AddressBits-1:0] RequestMask = address_t'{req_id: '1, default: '0};

  logic [Ways-1:0][AddressBits-1:0] tags;
  logic [Sets-1:0][Ways-1:0] valid_q;
  logic [Sets-1:0][Ways-2:0] tree_q;
  logic [Ways-1:0] valid;
  logic [Ways-1:0] match;
  logic [Ways-1:0] match_q;
  logic [WayBits-1:0] way;
  logic [WayBits-1:0] oldest;
  logic [WayBits-1:0] unused_oldest;
  logic [Ways-2:0] unused_tree;
  logic [Ways-2:0] touched;

  for (genvar i = 0; i < int'(Ways); i++) begin : g_way
    ram_1r1w #(
        .Width(AddressBits),
        .Depth(Sets),
        .Style("distributed")
    ) ram (
        .clk_i,
        .write_i(advance_i && fill_i && way_o == WayBits'(i)),
        .write_index_i(set_i),
        .data_i(key_i),
        .read_i(advance_i),
        .read_index_i(read_set_i),
        .data_o(tags[i])
    );
  end

  tlb_replace #(
      .Ways(Ways)
  ) choose (
      .tree_i  (tree_q[compare_set_i]),
      .used_i  ('0),
      .oldest_o(oldest),
      .tree_o  (unused_tree)
  );

  tlb_replace #(
      .Ways(Ways)
  ) touch (
      .tree_i  (tree_q[set_i]),
      .used_i  (way_o),
      .oldest_o(unused_oldest),
      .tree_o  (touched)
  );

  assign valid   = valid_q[compare_set_i];
  assign found_o = |match_q;

  always_comb begin
    for (int i = 0; i < int'(Ways); i++)
    match[i] = valid[i] && ((tags[i] ^ compare_key_i) & (whole_request_i ? RequestMask : '1)) == '0;
    way = oldest;
    for (int i = int'(Ways) - 1; i >= 0; i--) if (!valid[i]) way = WayBits'(i);
    for (int i = int'(Ways) - 1; i >= 0; i--) if (match[i]) way = WayBits'(i);
  end

  always_ff @(posedge clk_i) begin
    if (advance_i) begin
      match_q <= match;
      way_o   <= way;
      if ((use_i && found_o) || fill_i) tree_q[set_i] <= touched;
      if (fill_i) valid_q[set_i][way_o] <= 1'b1;
      if (forget_i) valid_q[set_i] <= valid_q[set_i] & ~match_q;
      if (clear_i) valid_q <= '0;
    end
    if (rst_i) begin
      valid_q <= '0;
      tree_q  <= '0;
    end
  end
endmodule

`default_nettype wire
