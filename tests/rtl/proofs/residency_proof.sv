`default_nettype none

// Any sequence of operations on a small filter, seen from one key: it is found only when it is in by the operations,
// and it never stands twice.
module residency_proof (
    input wire clk_i,
    input wire rst_i,
    input wire valid_i,
    input wire insert_i,
    input wire [3:0] key_i
);
  logic [3:0] one_q;  // any key, always the same
  logic in_q;  // inserted, and not removed since
  logic ready, done, found, insert_q;
  logic [3:0] key_q;

  residency_filter #(
      .KeyBits(4),
      .Sets(2),
      .Ways(2)
  ) filter (
      .clk_i,
      .rst_i,
      .valid_i,
      .ready_o(ready),
      .insert_i,
      .key_i,
      .set_i(key_i[0]),
      .done_o(done),
      .found_o(found)
  );

  always_ff @(posedge clk_i) begin
    one_q <= one_q;
    if (valid_i && ready) begin
      insert_q <= insert_i;
      key_q <= key_i;
    end
    if (done && key_q == one_q) in_q <= insert_q;
    if (rst_i) in_q <= 1'b0;
  end

  // The table as it is: places that hold the key; places of sets not yet cleared do not count.
  logic [1:0][1:0] here;
  logic cleared;
  always_comb begin
    for (int s = 0; s < 2; s++) begin
      cleared = filter.state_q != 2'd0 || filter.set_q > s[0];
      for (int w = 0; w < 2; w++) begin
        here[s][w] = cleared && filter.table_ram.memory_q[s][w*5+4] && filter.table_ram.memory_q[s][w*5+:4] == one_q;
      end
    end
  end

  always_comb
    if (!rst_i) begin
      assert (!(one_q[0] ? here[0] : here[1]));
      assert (here[0] != 2'b11 && here[1] != 2'b11);
      if (here != '0) assert (in_q);
      if (done && insert_q && found && key_q == one_q) assert (in_q);
      if (filter.state_q == 2'd0) assert (!in_q);
      if (filter.state_q >= 2'd2) begin
        assert (filter.key_q == key_q && filter.insert_q == insert_q && filter.set_q == key_q[0]);
      end
      if (filter.state_q == 2'd3) assert (filter.ways == filter.table_ram.memory_q[filter.set_q]);
    end
endmodule

`default_nettype wire
