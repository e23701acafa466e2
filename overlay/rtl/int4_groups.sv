`default_nettype none

// From the extremes of a block's groups to the code of each step, its zero point z, and the exponent U of each kind.
// Eight groups a cycle, each kind twice through the same pipeline: the first pass finds the largest step, from which
// U follows, the second codes. Arithmetic: speckv_pynq/reference/int4.py, "Encoding a kind", steps 1 to 5.
module int4_groups #(
    parameter int unsigned WordBits = 8
) (
    input  wire                                    clk_i,
    input  wire                                    rst_i,
    input  wire                                    start_i,         // while ready_o; what follows stands until done_o
    output logic                                   ready_o,
    output logic                                   done_o,          // one cycle
    input  wire                                    bf16_i,
    input  wire                                    has_key_i,
    input  wire                                    has_value_i,
    input  wire                                    dim80_i,
    input  wire         [         2:1]             sixteens_i,      // of tokens: 2 or 4; else 1
    input  wire         [WordBits-1:0]             row_segments_i,
    input  wire         [WordBits+1:0]             row_halves_i,    // of one token: halves of 16 values
    input  wire         [         1:0][14:0]       largest_i,       // magnitude of each kind
    output logic signed [         1:0][ 9:0]       exponent_o,      // U of each kind
    output logic signed [         1:0][ 9:0]       base_o,          // shift of code 0 to 63: see int4_scaled
    output logic                                   read_o,
    output logic        [WordBits-1:0]             read_word_o,
    output logic        [         1:0]             read_eight_o,
    input  wire         [         7:0][ 1:0][15:0] read_i,
    output logic                                   write_o,
    output logic        [WordBits-1:0]             write_word_o,
    output logic        [         1:0]             write_eight_o,
    output logic        [         7:0][19:0]       write_data_o     // {z, code} of eight groups
);
  localparam int unsigned Stages = 10;
  typedef enum logic [2:0] {
    Idle,
    Begin,
    Issue,
    Drain,
    Unit,
    Next
  } state_e;

  state_e state_q;
  logic kind_q, second_q;  // kind 0: keys
  logic [WordBits-1:0] word_q, first_word_q;
  logic [1:0] eight_q, third_q;
  logic [WordBits+7:0] eights_q, eights;  // still to be read
  logic [3:0] drain_q;
  logic narrow, word_last, two_groups;
  logic [7:0] field, field_q;  // exponent of the kind's largest

  assign two_groups = sixteens_i[2];
  assign field = bf16_i ? largest_i[kind_q][14:7] : 8'(largest_i[kind_q][14:10]);
  assign eights = kind_q ? (WordBits + 8)'(row_segments_i) << (sixteens_i[2] ? 3 : sixteens_i[1] ? 2 : 1) :
      (WordBits + 8)'(row_halves_i) << (two_groups ? 2 : 1);
  assign narrow = !kind_q && dim80_i && third_q == 2'd2;
  assign word_last = eight_q == 2'd3 || (narrow && eight_q == 2'd1) || eights_q == 1;
  assign ready_o = state_q == Idle;
  assign read_o = state_q == Issue;
  assign read_word_o = word_q;
  assign read_eight_o = eight_q;

  // The exponent from the largest step of the first pass.
  logic [22:0] top_step_q;
  logic [4:0] length, k_wanted, k_least, k_q;
  logic fits;
  logic signed [9:0] unit;  // U of k = 0
  always_comb begin
    length = '0;
    for (int i = 0; i < 23; ++i) if (top_step_q[i]) length = 5'(i + 1);
    fits = top_step_q < (23'd63 << (length > 5'd6 ? length - 5'd6 : 5'd0));
    k_wanted = length < 5'd12 ? 5'd0 : fits ? length - 5'd12 : length - 5'd11;  // 0 where least U is more
    // Least U is the exponent of the smallest subnormal.
    k_least = bf16_i ? (field_q < 8'd17 ? 5'(8'd17 - field_q) : 5'd0) : (field_q < 8'd14 ? 5'(8'd14 - field_q) : 5'd0);
    unit = signed'({2'b0, field_q}) - (bf16_i ? 10'sd150 : 10'sd38);
  end

  // U - 3 + bias + mantissa bits + Point of int4_scaled; the last two are 18 together.
  logic signed [9:0] base;
  assign base = signed'({2'b0, field_q}) + signed'({5'b0, k_q}) - 10'sd8;

  always_ff @(posedge clk_i) begin
    done_o <= 1'b0;
    case (state_q)
      Idle: begin
        kind_q <= !has_key_i;
        first_word_q <= '0;
        if (start_i) state_q <= Begin;
      end
      Begin: begin
        word_q <= first_word_q;
        {eight_q, third_q} <= '0;
        eights_q <= eights;
        drain_q <= '0;
        field_q <= field == '0 ? 8'd1 : field;
        state_q <= Issue;
      end
      Issue: begin
        eights_q <= eights_q - 1'b1;
        eight_q  <= word_last ? '0 : eight_q + 1'b1;
        if (word_last) begin
          word_q  <= word_q + 1'b1;
          third_q <= third_q == 2'd2 ? '0 : third_q + 1'b1;
        end
        if (eights_q == 1) state_q <= Drain;
      end
      Drain: begin
        drain_q <= drain_q + 1'b1;
        if (drain_q == (second_q ? 4'd9 : 4'd4)) state_q <= second_q ? Next : Unit;
      end
      Unit: begin
        k_q <= k_wanted > k_least ? k_wanted : k_least;
        second_q <= 1'b1;
        state_q <= Begin;
      end
      Next: begin
        second_q <= 1'b0;
        first_word_q <= word_q;
        kind_q <= 1'b1;
        done_o <= kind_q || !has_value_i;
        state_q <= kind_q || !has_value_i ? Idle : Begin;
      end
      default: state_q <= Idle;
    endcase
    if (state_q == Drain && second_q) begin
      exponent_o[kind_q] <= unit + signed'({5'b0, k_q});
      base_o[kind_q] <= base;
    end
    if (rst_i) begin
      state_q  <= Idle;
      second_q <= 1'b0;
      done_o   <= 1'b0;
    end
  end

  logic [Stages:1] valid_q;
  logic [Stages:1][WordBits+1:0] place_q;
  always_ff @(posedge clk_i) begin
    valid_q <= {valid_q[Stages-1:1], read_o} & {Stages{~rst_i}};
    place_q <= {place_q[Stages-1:1], {word_q, eight_q}};
  end
  assign write_o = valid_q[Stages] && second_q;
  assign {write_word_o, write_eight_o} = place_q[Stages];

  logic [7:0][22:0] steps;
  logic [22:0] top_step;
  always_comb begin
    top_step = top_step_q;
    for (int g = 0; g < 8; ++g) if (steps[g] > top_step) top_step = steps[g];
  end
  always_ff @(posedge clk_i) begin
    if (valid_q[5] && !second_q) top_step_q <= top_step;
    if (state_q == Begin && !second_q) top_step_q <= '0;
  end

  for (genvar g = 0; g < 8; ++g) begin : g_group
    int4_step i_step (
        .clk_i,
        .bf16_i,
        .field_i(field_q),
        .least_i(read_i[g][0]),
        .most_i (read_i[g][1]),
        .step_o (steps[g])
    );
    int4_code i_code (
        .clk_i,
        .bf16_i,
        .k_i    (k_q),
        .base_i (base),
        .least_i(read_i[g][0]),
        .step_i (steps[g]),
        .code_o (write_data_o[g][7:0]),
        .z_o    (write_data_o[g][19:8])
    );
  end
endmodule

`default_nettype wire
