`default_nettype none

// Descriptors of a table, in order, read ahead by up to 16. A descriptor comes with the response of its read.
// After stop_i nothing more is asked for; what is under way still comes out. idle_o: all of it has.
module dma_fetch
  import speckv_pkg::*;
#(
    localparam int unsigned Depth = 16,
    localparam int unsigned Burst = 8
) (
    input  wire                 clk_i,
    input  wire                 rst_i,
    input  wire                 start_i,
    input  wire         [ 57:0] line_i,
    input  wire         [ 31:0] count_i,
    input  wire                 stop_i,
    output logic                idle_o,
    output logic        [ 57:0] ar_line_o,
    output logic        [  6:0] ar_beats_o,
    output logic                ar_valid_o,
    input  wire                 ar_ready_i,
    input  wire         [511:0] r_data_i,
    input  wire         [  1:0] r_response_i,
    input  wire                 r_valid_i,
    output descriptor_t         descriptor_o,
    output logic        [  1:0] response_o,
    output logic                valid_o,
    input  wire                 ready_i
);
  logic [57:0] line_q;
  logic [31:0] left_q;
  logic [ 4:0] room_q;

  // Short bursts, so that the next one can be asked for while half of the descriptors still wait; 4 KiB
  // boundaries are multiples of them, and the first one ends where the later ones begin.
  logic [ 3:0] to_boundary;
  assign to_boundary = 4'(Burst) - 4'(line_q[2:0]);
  assign ar_line_o   = line_q;
  assign ar_beats_o  = left_q < 32'(to_boundary) ? left_q[6:0] : 7'(to_boundary);

  // An offer stands although a stop comes: it was made when the register was set.
  logic asked, popped;
  assign asked  = ar_valid_o && ar_ready_i;
  assign popped = valid_o && ready_i;
  assign idle_o = left_q == '0 && !ar_valid_o && room_q == 5'(Depth);

  always_ff @(posedge clk_i) begin
    // Room for whole bursts only: an offer once made is not withdrawn by later ones.
    if (ar_valid_o) ar_valid_o <= !ar_ready_i;
    else ar_valid_o <= left_q != '0 && !stop_i && room_q >= 5'(ar_beats_o);
    if (asked) begin
      line_q <= line_q + 58'(ar_beats_o);
      left_q <= left_q - 32'(ar_beats_o);
    end else if (stop_i && !ar_valid_o) begin
      left_q <= '0;
    end
    room_q <= room_q - (asked ? ar_beats_o[4:0] : '0) + 5'(popped);
    if (start_i) begin
      line_q <= line_i;
      left_q <= count_i;
    end
    if (rst_i) begin
      ar_valid_o <= 1'b0;
      left_q <= '0;
      room_q <= 5'(Depth);
    end
  end

  logic buffer_ready;
  // verilator lint_off PINCONNECTEMPTY
  fifo #(
      .Width(514),
      .Depth(Depth)
  ) u_buffer (
      .clk_i,
      .rst_i,
      .data_i ({r_response_i, r_data_i}),
      .valid_i(r_valid_i),
      .ready_o(buffer_ready),
      .data_o ({response_o, descriptor_o}),
      .valid_o,
      .ready_i,
      .count_o()
  );
  // verilator lint_on PINCONNECTEMPTY

  always_ff @(posedge clk_i) begin
    if (!rst_i && r_valid_i) begin
      assert (buffer_ready)
      else $error("a descriptor that was not asked for");
    end
  end
endmodule

`default_nettype wire
