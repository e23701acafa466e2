`default_nettype none

// axis_register against a list of at most two: nothing lost, nothing doubled, in order, stable while stalled.
module axis_register_proof #(
    parameter int unsigned Width = 3
) (
    input wire clk_i,
    input wire rst_i,
    input wire [Width-1:0] data_i,
    input wire valid_i,
    input wire ready_i
);
  logic [Width-1:0] data;
  logic ready, valid;

  axis_register #(
      .Width(Width)
  ) dut (
      .clk_i,
      .rst_i,
      .data_i,
      .valid_i,
      .ready_o(ready),
      .data_o (data),
      .valid_o(valid),
      .ready_i
  );

  logic [Width-1:0] list_q[2];  // oldest first
  logic [1:0] length_q;
  logic push, pop;
  logic stalled_q;
  logic [Width-1:0] offer_q;

  assign push = valid_i && ready;
  assign pop  = valid && ready_i;

  always_ff @(posedge clk_i) begin
    if (pop) list_q[0] <= list_q[1];
    if (push) list_q[1'(length_q-2'(pop))] <= data_i;
    length_q <= length_q + 2'(push) - 2'(pop);
    stalled_q <= valid && !ready_i && !rst_i;
    offer_q <= data;
    if (rst_i) length_q <= '0;
  end

  always_comb begin
    if (!rst_i) begin
      assert (length_q == 2'(valid) + 2'(dut.skid_valid_q));
      assert (valid || !dut.skid_valid_q);
      assert (ready == (length_q != 2'd2));
      assert (!valid || data == list_q[0]);
      assert (!dut.skid_valid_q || dut.skid_q == list_q[1]);
      assert (!stalled_q || (valid && data == offer_q));
      assert (!stalled_q || offer_q == list_q[0]);
    end
  end
endmodule

`default_nettype wire
