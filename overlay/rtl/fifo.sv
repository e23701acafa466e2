`default_nettype none

// A first-in-first-out queue with ready/valid on both sides and one clock. Depth is a power of two; data that has
// been taken in is offered from the second cycle on. `count_o` is what waits behind the entry on offer.
module fifo #(
    parameter int unsigned Width = 512,
    parameter int unsigned Depth = 16,
    parameter Style = "distributed",  // of the memory: distributed, block or ultra
    localparam int unsigned IndexBits = $clog2(Depth)
) (
    input  wire                clk_i,
    input  wire                rst_i,
    input  wire  [  Width-1:0] data_i,
    input  wire                valid_i,
    output logic               ready_o,
    output logic [  Width-1:0] data_o,
    output logic               valid_o,
    input  wire                ready_i,
    output logic [IndexBits:0] count_o
);
  if (Depth < 2 || Depth != 1 << IndexBits) begin : g_bad_depth
    $error("Depth %0d is not a power of two above 1", Depth);
  end

  (* ram_style = Style *)logic [  Width-1:0] memory_q[Depth];
  logic [IndexBits:0] write_q;
  logic [IndexBits:0] read_q;

  assign count_o = write_q - read_q;
  assign ready_o = ~count_o[IndexBits];

  // The output register reads ahead: one entry more than Depth fits in all.
  logic pop;
  assign pop = (count_o != '0) && (!valid_o || ready_i);

  always_ff @(posedge clk_i) begin
    if (valid_i && ready_o) begin
      memory_q[write_q[IndexBits-1:0]] <= data_i;
      write_q <= write_q + 1'b1;
    end
    if (pop) begin
      data_o <= memory_q[read_q[IndexBits-1:0]];
      read_q <= read_q + 1'b1;
    end
    if (pop || ready_i) valid_o <= pop;
    if (rst_i) begin
      write_q <= '0;
      read_q  <= '0;
      valid_o <= 1'b0;
    end
  end
endmodule

`default_nettype wire
