`default_nettype none

// CRC32C of messages of 512-bit beats, one beat a cycle, messages back to back, nothing to stall. `seed_i` is the
// state before the first beat (all ones for a CRC that begins here), `bytes_i` counts the valid bytes of the last
// beat (0 to 64; all others are full). The result follows the last beat by ten cycles; the CRC is its complement.
//
// A header of 60 bytes goes first as the beat {header[479:0], 32'h0} with seed 32'h641F6454: four zero bytes
// lead from that seed to all ones.
module crc32c (
    input  wire          clk_i,
    input  wire          rst_i,
    input  wire          valid_i,
    input  wire          first_i,
    input  wire          last_i,
    input  wire  [  6:0] bytes_i,
    input  wire  [ 31:0] seed_i,
    input  wire  [511:0] data_i,
    output logic         valid_o,
    output logic [ 31:0] state_o
);
  typedef logic [31:0][511:0] rows_t;  // [b]: which bits of a beat make bit b of the state
  typedef logic [31:0][31:0] square_t;  // the same for bits of the state before it

  function automatic logic [31:0] step(input logic [31:0] state);
    return {1'b0, state[31:1]} ^ (state[0] ? 32'h82F63B78 : 32'h0);
  endfunction

  // Bit i of a beat is followed by 511 - i others.
  function automatic rows_t data_rows();
    logic [31:0] column;
    column = 32'd1;
    for (int i = 511; i >= 0; --i) begin
      column = step(column);
      for (int b = 0; b < 32; ++b) data_rows[b][i] = column[b];
    end
  endfunction

  localparam rows_t Rows = data_rows();

  // A state is as good as the first 32 bits of the beat.
  function automatic square_t state_rows();
    for (int b = 0; b < 32; ++b) state_rows[b] = Rows[b][31:0];
  endfunction

  localparam square_t StateRows = state_rows();

  // Bytes past the end count as zeros, which are taken back below.
  logic [511:0] masked_q;
  logic [2:0] valid_q, first_q, last_q;
  logic [2:0][ 6:0] short_q;  // bytes that the last beat lacks
  logic [2:0][31:0] seed_q;

  always_ff @(posedge clk_i) begin
    for (int i = 0; i < 64; ++i) masked_q[8*i+:8] <= last_i && 7'(i) >= bytes_i ? 8'h0 : data_i[8*i+:8];
    valid_q <= {valid_q[1:0], valid_i} & {3{~rst_i}};
    first_q <= {first_q[1:0], first_i};
    last_q  <= {last_q[1:0], last_i};
    short_q <= {short_q[1:0], last_i ? 7'd64 - bytes_i : 7'd0};
    seed_q  <= {seed_q[1:0], seed_i};
  end

  // 512 bits to 32 in two steps: eighths of a beat, then their sum.
  logic [7:0][31:0] parts_q;
  logic [31:0] sum_q;

  always_ff @(posedge clk_i) begin
    for (int p = 0; p < 8; ++p) for (int b = 0; b < 32; ++b) parts_q[p][b] <= ^(masked_q[64*p+:64] & Rows[b][64*p+:64]);
    sum_q <= parts_q[0] ^ parts_q[1] ^ parts_q[2] ^ parts_q[3] ^ parts_q[4] ^ parts_q[5] ^ parts_q[6] ^ parts_q[7];
  end

  logic [31:0] prior, after, state_q;

  assign prior = first_q[2] ? seed_q[2] : state_q;
  always_comb for (int b = 0; b < 32; ++b) after[b] = sum_q[b] ^ ^(prior & StateRows[b]);
  always_ff @(posedge clk_i) if (valid_q[2]) state_q <= after;

  crc32c_shift #(
      .Bits(7),
      .Back(1'b1)
  ) i_back (
      .clk_i,
      .rst_i,
      .valid_i(valid_q[2] & last_q[2]),
      .state_i(after),
      .bytes_i(short_q[2]),
      .valid_o,
      .state_o
  );
endmodule

`default_nettype wire
