`default_nettype none

// Pieces of 1 to 64 bytes, one a cycle, joined to beats of 64. The last piece of a message also brings out what is
// left, zeros behind it; no piece may come in the cycle after it. Nothing stalls. Two stages: the piece is rotated
// to where it belongs, then merged with what waits; only the fill of the beat feeds back.
module byte_packer (
    input  wire          clk_i,
    input  wire          rst_i,
    input  wire          valid_i,
    input  wire  [  6:0] bytes_i,
    input  wire          last_i,
    input  wire          mark_i,   // goes with the last piece ...
    input  wire  [511:0] data_i,   // bytes past the piece do not matter
    output logic         valid_o,
    output logic         last_o,
    output logic         mark_o,   // ... to the last beat
    output logic [  6:0] bytes_o,  // in this beat: 64 but for the last
    output logic [511:0] data_o
);
  // Rotated piece, with the fill before it.
  logic [5:0] fill_q, at_q;
  logic [6:0] sum, end_q;
  logic valid_q, last_q, mark_q;
  logic [511:0] rotated_q;

  assign sum = 7'(fill_q) + bytes_i;

  always_ff @(posedge clk_i) begin
    valid_q <= valid_i && !rst_i;
    if (valid_i) begin
      fill_q <= last_i ? '0 : sum[5:0];
      at_q <= fill_q;
      end_q <= sum;
      last_q <= last_i;
      mark_q <= mark_i;
      rotated_q <= data_i << {fill_q, 3'b0} | data_i >> {7'd64 - 7'(fill_q), 3'b0};
    end
    if (rst_i) fill_q <= '0;
  end

  // What waits below the fill, the piece above it.
  logic [511:0] kept_q, merged, padded;
  logic [6:0] left_q;
  logic flush_q;

  always_comb begin
    for (int i = 0; i < 64; ++i) merged[8*i+:8] = 6'(i) < at_q ? kept_q[8*i+:8] : rotated_q[8*i+:8];
    for (int i = 0; i < 64; ++i) begin
      padded[8*i+:8] = flush_q ? kept_q[8*i+:8] : merged[8*i+:8];
      if (flush_q ? 7'(i) >= left_q : 7'(i) >= end_q) padded[8*i+:8] = '0;
    end
  end

  always_ff @(posedge clk_i) begin
    valid_o <= 1'b0;
    flush_q <= 1'b0;
    data_o  <= padded;
    if (valid_q && last_q) mark_o <= mark_q;
    if (flush_q) begin
      valid_o <= 1'b1;
      last_o  <= 1'b1;
      bytes_o <= left_q;
    end else if (valid_q) begin
      valid_o <= end_q >= 7'd64 || last_q;
      last_o  <= last_q && end_q <= 7'd64;
      bytes_o <= end_q >= 7'd64 ? 7'd64 : end_q;
      kept_q  <= end_q >= 7'd64 ? rotated_q : merged;
      flush_q <= last_q && end_q > 7'd64;
      left_q  <= end_q - 7'd64;
    end
    if (rst_i) begin
      valid_o <= 1'b0;
      flush_q <= 1'b0;
    end
  end

`ifndef SYNTHESIS
  always_ff @(posedge clk_i)
    if (!rst_i) begin
      assert (!(valid_i && valid_q && last_q))
      else $fatal(1, "a piece right after the last one");
    end
`endif
endmodule

`default_nettype wire
