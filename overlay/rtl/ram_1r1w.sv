`default_nettype none

// A memory with one write port and one read port of one clock; a read gives its word in the next cycle and holds it
// while `read_i` is low. A word that is written while it is read comes out as it was before.
module ram_1r1w #(
    parameter int unsigned Width = 512,
    parameter int unsigned Depth = 512,
    parameter Style = "block",  // distributed, block or ultra
    localparam int unsigned IndexBits = Depth > 1 ? $clog2(Depth) : 1
) (
    input  wire                  clk_i,
    input  wire                  write_i,
    input  wire  [IndexBits-1:0] write_index_i,
    input  wire  [    Width-1:0] data_i,
    input  wire                  read_i,
    input  wire  [IndexBits-1:0] read_index_i,
    output logic [    Width-1:0] data_o
);
  (* ram_style = Style *) logic [Width-1:0] memory_q[Depth];

  always_ff @(posedge clk_i) begin
    if (write_i) memory_q[write_index_i] <= data_i;
    if (read_i) data_o <= memory_q[read_index_i];
  end
endmodule

`default_nettype wire
