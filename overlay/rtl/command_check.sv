`default_nettype none

// What can be told from a command alone: its kind, and whether it is one at all. A value out of range comes with the
// bound that it breaks.
module command_check
  import speckv_pkg::*;
(
    input command_t command_i,
    output logic [2:0] class_o,  // one bit: dma_batch, prefetch, poll_done from bit 0 up; none: set_param, or bad
    output logic set_o,  // a set_param that is good
    output logic bad_o,
    output logic [31:0] value_o,  // of a bad one: what was found
    output logic [31:0] limit_o
);
  localparam logic [31:0] MaxRunsInFlight = 32'd4;
  localparam logic [31:0] MaxTimeoutUs = 32'd600_000_000;

  logic moves;
  logic [31:0] low, high;
  logic known;

  always_comb begin
    known = 1'b1;
    unique case (command_i.param)
      32'(ParameterPrefetchDepth):     {low, high} = {32'd0, 32'(RingSlots)};
      32'(ParameterCompressionScheme): {low, high} = {32'd0, 32'(SchemeLossless)};
      32'(ParameterRunsInFlight):      {low, high} = {32'd1, MaxRunsInFlight};
      32'(ParameterPrefetchSlice):     {low, high} = {32'd1, 32'(MaxBatch)};
      32'(ParameterCommandTimeoutUs):  {low, high} = {32'd1, MaxTimeoutUs};
      default:                         {known, low, high} = {1'b0, 64'd0};
    endcase
  end

  always_comb begin
    moves = command_i.opcode == OpcodeDmaBatch || command_i.opcode == OpcodePrefetch;
    class_o = {
      command_i.opcode == OpcodePollDone, command_i.opcode == OpcodePrefetch, command_i.opcode == OpcodeDmaBatch
    };
    set_o = command_i.opcode == OpcodeSetParam;
    bad_o = ~set_o & ~|class_o;
    value_o = 32'(command_i.opcode);
    limit_o = 32'(OpcodePollDone);
    if (set_o && !known) begin
      {bad_o, value_o, limit_o} = {1'b1, command_i.param, 32'(ParameterCommandTimeoutUs)};
    end else if (set_o && command_i.value < 64'(low)) begin
      {bad_o, value_o, limit_o} = {1'b1, command_i.value[31:0], low};
    end else if (set_o && command_i.value > 64'(high)) begin
      {bad_o, value_o, limit_o} = {1'b1, command_i.value[31:0], high};
    end else if (moves && 16'(command_i.move) > MoveDecompress) begin
      {bad_o, value_o, limit_o} = {1'b1, 32'(command_i.move), 32'(MoveDecompress)};
    end else if (moves && (16'(command_i.flags) & ~CommandFlagDefaultScheme) != '0) begin
      {bad_o, value_o, limit_o} = {1'b1, 32'(command_i.flags), 32'(CommandFlagDefaultScheme)};
    end else if (moves && command_i.count > MaxBatch) begin
      {bad_o, value_o, limit_o} = {1'b1, command_i.count, MaxBatch};
    end
    if (bad_o) {set_o, class_o} = '0;
  end

  logic unused;
  assign unused = ^{command_i.tag, command_i.owner, command_i.source, command_i.target, command_i.codebooks,
                    command_i.descriptors, command_i.descriptors_line, command_i.results, command_i.results_line,
                    command_i.timeout_us};
endmodule

`default_nettype wire
