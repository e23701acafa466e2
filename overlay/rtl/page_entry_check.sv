`default_nettype none

// What a page table entry says to a walk for a key: that it ends here, and how. Without a register.
module page_entry_check
  import speckv_pkg::*;
(
    input  page_table_entry_t                   entry_i,
    input  wire               [AddressBits-1:0] key_i,
    input  wire                                 error_i,  // the memory answered with an error
    input  wire                                 last_i,   // the walk looks no further
    output logic                                ended_o,
    output logic              [            2:0] status_o
);
  localparam int unsigned LineBits = $clog2(LineBytes);

  logic here;
  logic good;
  logic unused;  // what only the block's decoder can judge

  assign here = entry_i.flags[0] && {entry_i.key_high, entry_i.key_low} == 128'(key_i);
  assign good = entry_i.flags == 8'(PageFlagValid) && entry_i.record_offset[LineBits-1:0] == '0 &&
      entry_i.record_bytes[LineBits-1:0] == '0 && entry_i.record_bytes != '0 && entry_i.tokens != '0 &&
      entry_i.heads != '0 && entry_i.head_dim != '0 && entry_i.layer_count != '0 && entry_i.kinds != '0 &&
      entry_i.kinds <= KindBoth;
  assign unused = ^entry_i;

  always_comb begin
    ended_o  = 1'b1;
    status_o = 3'(TranslationNotMapped);
    if (error_i) status_o = 3'(TranslationBusError);
    else if (here) status_o = good ? 3'(TranslationOk) : 3'(TranslationBadEntry);
    else ended_o = entry_i.flags == '0 || last_i;
  end
endmodule

`default_nettype wire
