`default_nettype none

// CRC32C over bytes that are all zero, in one go: the state after `bytes_i` zero bytes (Back = 0), or the state from
// which that many zero bytes lead to the given one (Back = 1). CRC is linear, so from the states of two parts,
// state(a || b) = shift(state(a), bytes of b) ^ state(b begun at 0). A stage a bit of the count: a result each cycle,
// `Bits` cycles later.
module crc32c_shift #(
    parameter int unsigned Bits = 20,
    parameter bit Back = 1'b0
) (
    input  wire             clk_i,
    input  wire             rst_i,
    input  wire             valid_i,
    input  wire  [    31:0] state_i,
    input  wire  [Bits-1:0] bytes_i,
    output logic            valid_o,
    output logic [    31:0] state_o
);
  typedef logic [31:0][31:0] matrix_t;  // [j]: what bit j of the state becomes

  // One bit of zero, forward or back. The polynomial's bit 31 tells what was shifted out.
  function automatic logic [31:0] step(input logic [31:0] state);
    if (Back) return {state[30:0] ^ (state[31] ? 31'h02F63B78 : 31'h0), state[31]};
    return {1'b0, state[31:1]} ^ (state[0] ? 32'h82F63B78 : 32'h0);
  endfunction

  function automatic logic [31:0] apply(input matrix_t matrix, input logic [31:0] state);
    apply = '0;
    for (int j = 0; j < 32; ++j) if (state[j]) apply ^= matrix[j];
  endfunction

  // 2 ** log zero bytes: one byte, squared `log` times.
  function automatic matrix_t power(input int unsigned log);
    matrix_t square;
    for (int j = 0; j < 32; ++j) begin
      power[j] = 32'd1 << j;
      for (int i = 0; i < 8; ++i) power[j] = step(power[j]);
    end
    for (int unsigned k = 0; k < log; ++k) begin
      for (int j = 0; j < 32; ++j) square[j] = apply(power, power[j]);
      power = square;
    end
  endfunction

  logic [Bits:0][31:0] state;
  logic [Bits:0][Bits-1:0] bytes;
  logic [Bits:0] valid;

  assign state[0] = state_i;
  assign bytes[0] = bytes_i;
  assign valid[0] = valid_i;
  assign state_o  = state[Bits];
  assign valid_o  = valid[Bits];

  for (genvar k = 0; k < Bits; ++k) begin : g_stage
    localparam matrix_t Matrix = power(k);
    always_ff @(posedge clk_i) begin
      state[k+1] <= bytes[k][0] ? apply(Matrix, state[k]) : state[k];
      bytes[k+1] <= bytes[k] >> 1;
      valid[k+1] <= valid[k] & ~rst_i;
    end
  end

  logic unused;
  assign unused = &{1'b0, bytes[Bits]};
endmodule

`default_nettype wire
