`default_nettype none

// A run of beats out of a memory used as a ring, as a stream; runs follow one another in the ring. One beat a cycle:
// up to eight are on their way or wait.
module ring_reader #(
    parameter int unsigned IndexBits = 12
) (
    input  wire                  clk_i,
    input  wire                  rst_i,
    input  wire                  start_i,  // while ready_o
    input  wire  [  IndexBits:0] beats_i,  // of the run
    input  wire                  skip_i,   // pass it by
    output logic                 ready_o,
    output logic                 read_o,
    output logic [IndexBits-1:0] index_o,
    input  wire  [        511:0] data_i,   // a cycle later
    output logic [        511:0] data_o,
    output logic                 valid_o,
    input  wire                  ready_i
);
  logic [IndexBits-1:0] index_q;
  logic [  IndexBits:0] left_q;
  logic [3:0] credits_q, unused_count;
  logic read_q, unused_ready;

  // The next run may begin right behind the last beat of this one.
  assign ready_o = left_q == '0 || (left_q == 1 && read_o);
  assign read_o  = left_q != '0 && credits_q != '0;
  assign index_o = index_q;

  always_ff @(posedge clk_i) begin
    read_q <= read_o && !rst_i;
    credits_q <= credits_q + 4'(valid_o && ready_i) - 4'(read_o);
    if (read_o) begin
      left_q  <= left_q - 1'b1;
      index_q <= index_q + 1'b1;
    end
    if (start_i) begin
      left_q <= skip_i ? '0 : beats_i;
      if (skip_i) index_q <= index_q + IndexBits'(read_o) + beats_i[IndexBits-1:0];
    end
    if (rst_i) begin
      left_q <= '0;
      index_q <= '0;
      credits_q <= 4'd8;
    end
  end

  fifo #(
      .Width(512),
      .Depth(8)
  ) i_waiting (
      .clk_i,
      .rst_i,
      .data_i,
      .valid_i(read_q),
      .ready_o(unused_ready),
      .data_o,
      .valid_o,
      .ready_i,
      .count_o(unused_count)
  );

  logic unused;
  assign unused = &{1'b0, unused_count, unused_ready};
endmodule

`default_nettype wire
