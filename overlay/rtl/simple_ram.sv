`default_nettype none

// A memory with one port to write and one to read: what is read comes a cycle later and stands until the next
// read. A word read while it is written comes out old.
module simple_ram #(
    parameter int unsigned Width = 512,
    parameter int unsigned Depth = 512,
    parameter Style = "block",  // of the memory: distributed, block or ultra
    localparam int unsigned IndexBits = $clog2(Depth)
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
