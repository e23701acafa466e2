`default_nettype none

// fifo against a list: what it holds and offers is what was put in and not yet taken, in that order. All of it is
// invariant, so one step of induction proves it for every sequence of inputs. Data passes unread: any width will do.
module fifo_proof #(
    parameter int unsigned Width = 3,
    parameter int unsigned Depth = 4
) (
    input wire clk_i,
    input wire rst_i,
    input wire [Width-1:0] data_i,
    input wire valid_i,
    input wire ready_i
);
  localparam int unsigned Bits = $clog2(Depth);

  logic [Width-1:0] data;
  logic ready, valid;
  logic [Bits:0] count;

  fifo #(
      .Width(Width),
      .Depth(Depth)
  ) dut (
      .clk_i,
      .rst_i,
      .data_i,
      .valid_i,
      .ready_o(ready),
      .data_o (data),
      .valid_o(valid),
      .ready_i,
      .count_o(count)
  );

  logic [Width-1:0] list_q[Depth + 1];  // oldest first
  logic [Bits+1:0] length_q;
  logic push, pop;
  logic stalled_q;
  logic waiting_q;
  logic [Width-1:0] offer_q;

  assign push = valid_i && ready;
  assign pop  = valid && ready_i;

  always_ff @(posedge clk_i) begin
    if (pop) for (int i = 0; i < int'(Depth); i++) list_q[i] <= list_q[i+1];
    if (push) list_q[length_q-(Bits+2)'(pop)] <= data_i;
    length_q <= length_q + (Bits + 2)'(push) - (Bits + 2)'(pop);
    stalled_q <= valid && !ready_i && !rst_i;
    offer_q <= data;
    waiting_q <= count != '0 && !rst_i;
    if (rst_i) length_q <= '0;
  end

  always_comb begin
    if (!rst_i) begin
      assert (length_q == (Bits + 2)'(count) + (Bits + 2)'(valid));  // nothing is lost or doubled
      assert (32'(count) <= Depth);
      assert (ready == (32'(count) != Depth));
      assert (!valid || data == list_q[0]);  // order
      for (int i = 0; i < int'(Depth); i++)
        if (i < int'(count)) assert (dut.memory_q[Bits'(int'(dut.read_q)+i)] == list_q[i+int'(valid)]);
      assert (!stalled_q || (valid && data == offer_q));  // stable while stalled
      assert (!stalled_q || offer_q == list_q[0]);
      assert (!waiting_q || valid);  // what waits is offered in the next cycle
    end
  end
endmodule

`default_nettype wire
