`default_nettype none

// The command processor's counters, in their places among the registers.
module command_counters
  import speckv_pkg::*;
(
    input  wire               clk_i,
    input  wire               rst_i,
    input  wire               completed_i,  // a command, with
    input  wire        [15:0] status_i,
    input  wire               ran_i,        // a table, with
    input  dma_done_t         done_i,
    input  wire               busy_i,
    input  wire               full_i,
    output csr_value_t        value_o
);
  always_ff @(posedge clk_i) begin
    if (completed_i) begin
      value_o.count_commands   <= value_o.count_commands + 64'd1;
      value_o.count_superseded <= value_o.count_superseded + 64'(status_i == CommandStatusSuperseded);
      value_o.count_timeouts   <= value_o.count_timeouts + 64'(status_i == CommandStatusDeviceTimeout);
    end
    if (ran_i) begin
      value_o.count_blocks <= value_o.count_blocks + 64'(done_i.blocks);
      value_o.count_failed <= value_o.count_failed + 64'(done_i.failed);
      value_o.count_bytes  <= value_o.count_bytes + done_i.bytes;
    end
    value_o.count_busy_cycles  <= value_o.count_busy_cycles + 64'(busy_i);
    value_o.count_stall_cycles <= value_o.count_stall_cycles + 64'(full_i);
    if (rst_i) value_o <= '0;
  end

  logic unused;
  assign unused = ^{done_i.tag, done_i.first_failed, done_i.value, done_i.limit, done_i.block_status, done_i.status};
endmodule

`default_nettype wire
