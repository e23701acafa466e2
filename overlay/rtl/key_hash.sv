`default_nettype none

// CRC32C of a block key's twelve bytes, least significant first: where a key stands in the page table, the TLB and the
// directory. CRC is linear, so each bit of it is the parity of some bits of the key.
module key_hash
  import speckv_pkg::AddressBits;
(
    input  wire  [AddressBits-1:0] key_i,
    output logic [           31:0] hash_o
);
  localparam int unsigned Bits = 96;
  typedef logic [31:0][Bits-1:0] rows_t;

  function automatic logic [31:0] crc_of(input logic [Bits-1:0] data);
    logic [31:0] crc = '1;
    for (int i = 0; i < int'(Bits); i++) crc = (crc >> 1) ^ ((crc[0] ^ data[i]) ? 32'h82F63B78 : 32'h0);
    return ~crc;
  endfunction

  localparam logic [31:0] OfZero = crc_of('0);

  // Which bits of the key each bit of the checksum depends on.
  function automatic rows_t rows_of();
    rows_t rows;
    logic [31:0] column;
    for (int i = 0; i < int'(Bits); i++) begin
      column = crc_of(Bits'(1) << i) ^ OfZero;
      for (int j = 0; j < 32; j++) rows[j][i] = column[j];
    end
    return rows;
  endfunction

  localparam rows_t Rows = rows_of();

  always_comb begin
    for (int j = 0; j < 32; j++) hash_o[j] = OfZero[j] ^ (^(Bits'(key_i) & Rows[j]));
  end
endmodule

`default_nettype wire
