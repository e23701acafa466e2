`default_nettype none

// Runs of lines to a stream, in their order. A burst is asked for only when the buffer has room for all of it, so
// the answer is always taken at once and never holds up other users of the read channel; Depth beats may be under
// way, which is what covers the memory's latency. `final_i` marks a run after which data_last_o is set. A beat
// comes with its response (0: okay).
module axi_reader #(
    parameter int unsigned Depth = 512
) (
    input  wire          clk_i,
    input  wire          rst_i,
    input  wire  [ 57:0] run_line_i,
    input  wire  [ 25:0] run_beats_i,
    input  wire          run_final_i,
    input  wire          run_valid_i,
    output logic         run_ready_o,
    // Addresses asked for; beats that come back, in order.
    output logic [ 57:0] ar_line_o,
    output logic [  6:0] ar_beats_o,
    output logic         ar_valid_o,
    input  wire          ar_ready_i,
    input  wire  [511:0] r_data_i,
    input  wire  [  1:0] r_response_i,
    input  wire          r_last_i,
    input  wire          r_valid_i,
    output logic [511:0] data_o,
    output logic [  1:0] data_response_o,
    output logic         data_last_o,
    output logic         data_valid_o,
    input  wire          data_ready_i
);
  localparam int unsigned CountBits = $clog2(Depth) + 1;
  localparam int unsigned Bursts = 32;

  logic burst_valid, burst_last, burst_final, burst_taken;
  axi_burst u_burst (
      .clk_i,
      .rst_i,
      .run_line_i,
      .run_beats_i,
      .run_tag_i(run_final_i),
      .run_valid_i,
      .run_ready_o,
      .line_o(ar_line_o),
      .beats_o(ar_beats_o),
      .last_o(burst_last),
      .tag_o(burst_final),
      .valid_o(burst_valid),
      .ready_i(burst_taken)
  );

  // Places of the buffer that no beat has or is promised.
  logic [CountBits-1:0] room_q;
  logic order_ready, popped;
  assign ar_valid_o  = burst_valid && order_ready && room_q >= CountBits'(ar_beats_o);
  assign burst_taken = ar_valid_o && ar_ready_i;
  assign popped      = data_valid_o && data_ready_i;
  always_ff @(posedge clk_i) begin
    room_q <= room_q - (burst_taken ? CountBits'(ar_beats_o) : '0) + CountBits'(popped);
    if (rst_i) room_q <= CountBits'(Depth);
  end

  // Which of the bursts under way end a stream.
  logic order_final, order_valid;
  // verilator lint_off PINCONNECTEMPTY
  fifo #(
      .Width(1),
      .Depth(Bursts)
  ) u_order (
      .clk_i,
      .rst_i,
      .data_i (burst_last && burst_final),
      .valid_i(burst_taken),
      .ready_o(order_ready),
      .data_o (order_final),
      .valid_o(order_valid),
      .ready_i(r_valid_i && r_last_i),
      .count_o()
  );

  logic buffer_ready;
  fifo #(
      .Width(515),
      .Depth(Depth),
      .Style("block")
  ) u_buffer (
      .clk_i,
      .rst_i,
      .data_i ({r_last_i && order_final, r_response_i, r_data_i}),
      .valid_i(r_valid_i),
      .ready_o(buffer_ready),
      .data_o ({data_last_o, data_response_o, data_o}),
      .valid_o(data_valid_o),
      .ready_i(data_ready_i),
      .count_o()
  );
  // verilator lint_on PINCONNECTEMPTY

  // The memory answers no sooner than two cycles after the address was handed over.
  always_ff @(posedge clk_i) begin
    if (!rst_i && r_valid_i) begin
      assert (buffer_ready && order_valid)
      else $error("a read answer that was not asked for");
    end
  end
endmodule

`default_nettype wire
