`default_nettype none

// Tree pseudo-LRU of one set, without a register: which way to replace, and the tree after a way was used. A node's
// bit points to the half that was used longer ago; the root is bit 0, the children of i are 2i + 1 and 2i + 2.
module tlb_replace #(
    parameter  int unsigned Ways    = 4,
    localparam int unsigned WayBits = $clog2(Ways)
) (
    input  wire  [   Ways-2:0] tree_i,
    input  wire  [WayBits-1:0] used_i,
    output logic [WayBits-1:0] oldest_o,
    output logic [   Ways-2:0] tree_o
);
  always_comb begin
    automatic int node = 0;
    for (int level = int'(WayBits) - 1; level >= 0; level--) begin
      oldest_o[level] = tree_i[WayBits'(node)];
      node = 2 * node + 1 + int'(tree_i[WayBits'(node)]);
    end
  end

  always_comb begin
    automatic int node = 0;
    tree_o = tree_i;
    for (int level = int'(WayBits) - 1; level >= 0; level--) begin
      tree_o[WayBits'(node)] = !used_i[level];
      node = 2 * node + 1 + int'(used_i[level]);
    end
  end
endmodule

`default_nettype wire
