`default_nettype none

// Scheme int8_delta_rle, first half: runs of deltas to 8-bit values, 32 a cycle. A line of 32 pairs takes as many cycles
// as it fills lines of values: one where all runs are single, up to 256. Once a kind has all its values the rest of its
// pairs is only counted, so that whatever comes ends.
//
// Counts are summed over a line to where each run begins; a run's delta is put there and fills the lanes up to the next;
// deltas are summed over the lanes. What reaches past 32 lanes waits for the next line.
module int8_run_decoder
  import speckv_pkg::*;
(
    input  wire                         clk_i,
    input  wire                         rst_i,
    input  wire                         begin_i,
    // Of the record, from the cycle after begin_i until ended_o.
    // verilator lint_off UNUSEDSIGNAL
    input  wire record_header_t         header_i,
    // verilator lint_on UNUSEDSIGNAL
    input  wire                 [ 19:0] key_beats_i,
    input  wire                 [ 19:0] value_beats_i,
    input  wire                         line_valid_i,
    input  wire                         line_empty_i,
    input  wire                         line_last_i,
    input  wire                 [511:0] line_i,
    output logic                        line_ready_o,
    input  wire                         room_i,          // for 24 lines
    output logic                        values_valid_o,
    output logic                [255:0] values_o,
    output logic                        ended_o,
    output logic                        bad_o,           // with ended_o: the payload contradicts itself
    output logic                [ 31:0] value_o,
    output logic                [ 31:0] limit_o
);
  typedef struct packed {
    logic valid;
    logic second;  // of V
    logic first;   // of its kind
    logic last;    // of the record
  } tag_t;

  // 0: a line, split where V begins.
  logic loading_q, started_q, line_valid_q, line_last_q, past_key_q, key_begun_q, value_begun_q;
  logic [31:0][15:0] pairs_q;
  logic [30:0] key_left_q, left_q;  // pairs, from this line on
  logic [5:0] key_pairs, all_pairs;
  logic move, take_line, key_part, final_part;
  assign key_pairs = key_left_q > 31'd32 ? 6'd32 : key_left_q[5:0];
  assign all_pairs = left_q > 31'd32 ? 6'd32 : left_q[5:0];
  assign key_part = key_pairs != '0 && !past_key_q;
  assign final_part = !key_part || all_pairs <= key_pairs;
  assign take_line = line_valid_q && move && final_part;
  assign line_ready_o = started_q && (!line_valid_q || (take_line && !line_last_q));

  tag_t tag0;
  logic [31:0] valid0;
  assign tag0.valid  = line_valid_q;
  assign tag0.second = !key_part;
  assign tag0.first  = key_part ? !key_begun_q : !value_begun_q;
  assign tag0.last   = line_last_q && final_part;
  always_comb
    for (int i = 0; i < 32; ++i) valid0[i] = key_part ? 6'(i) < key_pairs : 6'(i) >= key_pairs && 6'(i) < all_pairs;

  always_ff @(posedge clk_i) begin
    loading_q <= begin_i && !rst_i;
    if (loading_q) begin
      started_q <= 1'b1;
      key_left_q <= header_i.scheme_params[63:33];
      left_q <= header_i.payload_bytes[31:1];
      {key_begun_q, value_begun_q} <= '0;
    end
    if (line_valid_q && move) begin
      if (key_part) key_begun_q <= 1'b1;
      else value_begun_q <= 1'b1;
      past_key_q <= 1'b1;
    end
    if (take_line) begin
      line_valid_q <= 1'b0;
      key_left_q <= key_left_q - 31'(key_pairs);
      left_q <= left_q - 31'(all_pairs);
      if (line_last_q) started_q <= 1'b0;
    end
    if (line_valid_i && line_ready_o) begin
      line_valid_q <= 1'b1;
      line_last_q <= line_last_i;
      pairs_q <= line_i;
      past_key_q <= 1'b0;
      if (line_empty_i) {key_left_q, left_q} <= '0;
    end
    if (rst_i) {started_q, line_valid_q} <= '0;
  end

  // 1 to 3: where each run ends, counted from the line's first value.
  tag_t [3:1] tag_q;
  logic [3:1][31:0] some_q;
  logic [3:1][31:0][7:0] delta_q;
  logic [3:1][31:0][13:0] ends_q;

  function automatic logic [31:0][13:0] summed(input logic [31:0][13:0] terms, input int unsigned reach);
    for (int i = 0; i < 32; ++i) summed[i] = terms[i] + (i >= int'(reach) ? terms[5'(i-int'(reach))] : 14'd0);
  endfunction

  // Sums of 2, 4, 8, ... neighbours.
  logic [31:0][13:0] counts, by1, by2, by4, by8, by16;
  always_comb begin
    by1  = summed(counts, 1);
    by2  = summed(ends_q[1], 2);
    by4  = summed(by2, 4);
    by8  = summed(ends_q[2], 8);
    by16 = summed(by8, 16);
  end
  always_comb for (int i = 0; i < 32; ++i) counts[i] = valid0[i] ? 14'(pairs_q[i][7:0]) + 14'd1 : 14'd0;
  always_ff @(posedge clk_i) begin
    if (move) begin
      tag_q <= {tag_q[2:1], tag0};
      some_q <= {some_q[2:1], valid0};
      ends_q <= {by16, by4, by1};
      delta_q[3:2] <= delta_q[2:1];
      for (int i = 0; i < 32; ++i) delta_q[1][i] <= pairs_q[i][15:8];
    end
    if (rst_i) for (int i = 1; i < 4; ++i) tag_q[i].valid <= 1'b0;
  end

  // 4: where each run begins, counted from the line of values that is being filled.
  tag_t tag4_q;
  logic [31:0] some4_q;
  logic [31:0][7:0] delta4_q;
  logic [31:0][13:0] begins4_q;
  logic [4:0] fill_q, fill;
  logic [8:0] lines4_q;  // of values that this line completes
  logic [1:0][31:0] total_q;  // values of K, of V
  logic [13:0] filled;
  assign fill   = tag_q[3].first ? 5'd0 : fill_q;
  assign filled = ends_q[3][31] + 14'(fill);
  always_ff @(posedge clk_i) begin
    if (move) begin
      tag4_q <= tag_q[3];
      some4_q <= some_q[3];
      delta4_q <= delta_q[3];
      begins4_q[0] <= 14'(fill);
      for (int i = 1; i < 32; ++i) begins4_q[i] <= ends_q[3][i-1] + 14'(fill);
      lines4_q <= filled[13:5];
      if (tag_q[3].valid) begin
        fill_q <= filled[4:0];
        total_q[tag_q[3].second] <= total_q[tag_q[3].second] + 32'(ends_q[3][31]);
      end
    end
    if (loading_q) total_q <= '0;
    if (rst_i) tag4_q.valid <= 1'b0;
  end

  // 5: line by line of values; the last also takes what reaches into the next.
  logic [8:0] line_q;
  logic [19:0] due_q, due;
  logic completes, finishes, step;
  assign due = tag4_q.first && line_q == '0 ? (tag4_q.second ? value_beats_i : key_beats_i) : due_q;
  assign completes = lines4_q != '0 && due != '0;
  assign finishes = !completes || line_q + 9'd1 == lines4_q || due == 20'd1;
  assign step = tag4_q.valid && room_i;
  assign move = !tag4_q.valid || (step && finishes);

  tag_t tag5_q;
  logic emit5_q, finish5_q, begin5_q;
  logic [31:0] low5_q, high5_q;
  logic [31:0][31:0] lane5_q;
  logic [31:0][ 7:0] delta5_q;
  always_ff @(posedge clk_i) begin
    tag5_q <= tag4_q;
    tag5_q.valid <= step && !rst_i;
    tag5_q.last <= tag4_q.last && finishes;
    begin5_q <= tag4_q.first && line_q == '0;
    {emit5_q, finish5_q} <= {completes, finishes};
    delta5_q <= delta4_q;
    for (int i = 0; i < 32; ++i) begin
      lane5_q[i] <= 32'd1 << begins4_q[i][4:0];
      low5_q[i]  <= some4_q[i] && begins4_q[i][13:5] == line_q;
      high5_q[i] <= some4_q[i] && begins4_q[i][13:5] == line_q + 9'd1 && completes;
    end
    if (step) begin
      line_q <= finishes ? '0 : line_q + 9'd1;
      due_q  <= completes ? due - 20'd1 : due;
    end
    if (rst_i) line_q <= '0;
  end

  // 6: runs to the lanes where they begin.
  tag_t tag6_q;
  logic emit6_q, finish6_q, begin6_q;
  logic [1:0][31:0] mark6_q;
  logic [1:0][31:0][7:0] delta6_q;
  logic [1:0][31:0] mark5;
  logic [1:0][31:0][7:0] lane_delta5;
  always_comb begin
    mark5 = '0;
    lane_delta5 = '0;
    for (int i = 0; i < 32; ++i)
    for (int l = 0; l < 32; ++l) begin
      if (low5_q[i] && lane5_q[i][l]) begin
        mark5[0][l] = 1'b1;
        lane_delta5[0][l] |= delta5_q[i];
      end
      if (high5_q[i] && lane5_q[i][l]) begin
        mark5[1][l] = 1'b1;
        lane_delta5[1][l] |= delta5_q[i];
      end
    end
  end
  always_ff @(posedge clk_i) begin
    {tag6_q, emit6_q, finish6_q, begin6_q} <= {tag5_q, emit5_q, finish5_q, begin5_q};
    mark6_q <= mark5;
    delta6_q <= lane_delta5;
    if (rst_i) tag6_q.valid <= 1'b0;
  end

  // 7: together with what earlier runs left.
  logic [31:0] rest_mark_q, mark7_q, mark6;
  logic [31:0][7:0] rest_delta_q, delta7_q, delta6;
  // verilator lint_off UNUSEDSIGNAL
  tag_t tag7_q;
  // verilator lint_on UNUSEDSIGNAL
  logic emit7_q, begins_q, begin7_q;
  assign mark6  = mark6_q[0] | (begin6_q ? '0 : rest_mark_q);
  assign delta6 = delta6_q[0] | (begin6_q ? '0 : rest_delta_q);
  always_ff @(posedge clk_i) begin
    mark7_q  <= mark6;
    delta7_q <= delta6;
    tag7_q   <= tag6_q;
    emit7_q  <= tag6_q.valid && emit6_q;
    begin7_q <= begin6_q || begins_q;
    if (tag6_q.valid) begin
      begins_q <= (begin6_q || begins_q) && !emit6_q;  // a kind's first line is still to come
      rest_mark_q <= !emit6_q ? mark6 : finish6_q ? mark6_q[1] : '0;
      rest_delta_q <= !emit6_q ? delta6 : finish6_q ? delta6_q[1] : '0;
    end
    if (rst_i) {emit7_q, begins_q, tag7_q.valid} <= '0;
  end

  logic ended;
  logic [1:0] below;
  int8_prefix i_prefix (
      .clk_i,
      .rst_i,
      .valid_i (emit7_q),
      .begin_i (begin7_q),
      .second_i(tag7_q.second),
      .last_i  (tag7_q.valid && tag7_q.last),
      .mark_i  (mark7_q),
      .delta_i (delta7_q),
      .clear_i (loading_q),
      .valid_o (values_valid_o),
      .values_o,
      .last_o  (ended),
      .below_o (below)
  );

  int8_verdict i_verdict (
      .clk_i,
      .rst_i,
      .ended_i(ended),
      .header_i,
      .key_beats_i,
      .value_beats_i,
      .total_i(total_q),
      .below_i(below),
      .ended_o,
      .bad_o,
      .value_o,
      .limit_o
  );
endmodule

`default_nettype wire
