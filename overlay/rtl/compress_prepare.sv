`default_nettype none

// First step of compress_encode, on one block at a time: the codes of int4's groups, or the reciprocals of
// int8_delta_rle. A block without coding is done at once. Codes and zero points of two blocks are held: slot_free_i
// says that the older one's are needed no longer.
module compress_prepare #(
    parameter int unsigned WordBits = 8
) (
    input wire clk_i,
    input wire rst_i,
    input wire valid_i,  // a block; it stands until done_o
    output logic done_o,  // with the results below
    input wire coded_i,
    input wire int4_i,
    input wire bf16_i,
    input wire has_key_i,
    input wire has_value_i,
    input wire dim80_i,
    input wire [2:1] sixteens_i,  // of tokens: 2 or 4; else 1
    input wire [WordBits-1:0] row_segments_i,
    input wire [WordBits+1:0] row_halves_i,
    input wire [1:0][14:0] largest_i,
    output logic extremes_read_o,
    output logic [WordBits:0] extremes_word_o,
    output logic [1:0] extremes_eight_o,
    input wire [7:0][1:0][15:0] extremes_i,
    output logic extremes_free_o,
    output logic signed [1:0][9:0] exponent_o,
    output logic signed [1:0][9:0] base_o,
    output logic [1:0][26:0] reciprocal_o,
    input wire slot_free_i,
    output logic write_o,
    output logic write_slot_o,
    output logic [WordBits-1:0] write_word_o,
    output logic [1:0] write_eight_o,
    output logic [7:0][19:0] write_data_o  // {z, code} of eight groups
);
  typedef enum logic [1:0] {
    Idle,
    Groups,
    Reciprocals
  } state_e;
  state_e state_q;
  logic groups_start, groups_done, groups_ready, reciprocal_start, fresh_q;
  logic [1:0] reciprocal_done;
  logic [1:0] slots_q;  // held
  logic extremes_slot_q;

  assign groups_start = state_q == Idle && valid_i && coded_i && int4_i && slots_q != 2'd2 && groups_ready;
  assign reciprocal_start = state_q == Idle && valid_i && coded_i && !int4_i;
  assign done_o = (state_q == Idle && valid_i && !coded_i) || (state_q == Groups && groups_done) ||
      (state_q == Reciprocals && !fresh_q && &reciprocal_done);
  assign extremes_free_o = done_o && int4_i;
  assign extremes_word_o[WordBits] = extremes_slot_q;

  always_ff @(posedge clk_i) begin
    fresh_q <= reciprocal_start;
    if (groups_start) state_q <= Groups;
    if (reciprocal_start) state_q <= Reciprocals;
    if (done_o) state_q <= Idle;
    if (extremes_free_o) extremes_slot_q <= !extremes_slot_q;
    if (extremes_free_o && coded_i) write_slot_o <= !write_slot_o;
    slots_q <= slots_q + 2'(groups_start) - 2'(slot_free_i);
    if (rst_i) begin
      state_q <= Idle;
      {extremes_slot_q, write_slot_o, slots_q} <= '0;
    end
  end

  int4_groups #(
      .WordBits(WordBits)
  ) i_groups (
      .clk_i,
      .rst_i,
      .start_i(groups_start),
      .ready_o(groups_ready),
      .done_o(groups_done),
      .bf16_i,
      .has_key_i,
      .has_value_i,
      .dim80_i,
      .sixteens_i,
      .row_segments_i,
      .row_halves_i,
      .largest_i,
      .exponent_o,
      .base_o,
      .read_o(extremes_read_o),
      .read_word_o(extremes_word_o[WordBits-1:0]),
      .read_eight_o(extremes_eight_o),
      .read_i(extremes_i),
      .write_o,
      .write_word_o,
      .write_eight_o,
      .write_data_o
  );

  for (genvar k = 0; k < 2; ++k) begin : g_reciprocal
    int8_reciprocal i_reciprocal (
        .clk_i,
        .rst_i,
        .start_i(reciprocal_start),
        .bf16_i,
        .magnitude_i(largest_i[k]),
        .done_o(reciprocal_done[k]),
        .quotient_o(reciprocal_o[k])
    );
  end
endmodule

`default_nettype wire
