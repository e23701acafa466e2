`default_nettype none

// Takes int4 payloads apart: for each kind its planes of codes and of z, which go to the store of scales (two kinds fit),
// and its values q, 32 bytes at a time. A kind is told to the other side once its scales are stored.
module int4_planes #(
    parameter int unsigned MaxBlockBytes = 131072,
    localparam int unsigned WordBits = $clog2(MaxBlockBytes / 1024)
) (
    input  wire                      clk_i,
    input  wire                      rst_i,
    input  wire                      job_valid_i,
    output logic                     job_ready_o,
    input  wire                      has_key_i,
    input  wire                      has_value_i,
    input  wire                      bf16_i,
    input  wire         [      15:0] tokens_i,
    input  wire         [      15:0] heads_i,
    input  wire         [      15:0] head_dim_i,
    input  wire         [      31:0] exponents_i,       // U of K, U of V
    // The payload, from its first byte.
    input  wire         [     511:0] payload_tdata_i,
    input  wire                      payload_tvalid_i,
    output logic                     payload_tready_o,
    // Planes: 32 groups at a time.
    output logic        [       2:0] write_o,           // codes, low z, high z
    output logic        [WordBits:0] write_index_o,
    output logic        [     255:0] plane_o,
    output logic        [     255:0] q_tdata_o,
    output logic                     q_tvalid_o,
    input  wire                      q_tready_i,
    // A kind whose scales are stored; kind_done_i: they are not needed any longer.
    output logic                     kind_valid_o,
    output logic                     key_o,
    output logic                     last_o,            // of the record
    output logic                     bf16_o,
    output logic signed [       9:0] reach_o,           // see int4_value
    output logic        [      15:0] tokens_o,
    output logic        [      15:0] heads_o,
    output logic        [      15:0] head_dim_o,
    input  wire                      kind_done_i
);
  typedef enum logic [2:0] {
    Idle,
    Rows,
    Sizes,
    Codes,
    ZLow,
    ZHigh,
    Values
  } state_e;
  state_e state_q;

  logic [31:0] exponents_q;
  logic [1:0] in_use_q;  // kinds whose scales are stored or being stored
  logic bank_q;

  // Sixteens of groups and of values a token; then whole transfers of 32 groups (the last may be half) and of values.
  logic [15:0] sixteens_q, segments_q, chunks_q, left_q;
  logic last_q, half_chunk_q;
  logic [WordBits-1:0] index_q;

  logic [3:0] take;
  logic half, planes, fire, skip, gearbox_valid;
  logic [255:0] words;
  assign half   = last_q && half_chunk_q;
  assign planes = state_q inside {Codes, ZLow, ZHigh};
  assign skip   = state_q == Values && last_q && last_o;
  assign take   = state_q == ZHigh ? (half ? 4'd1 : 4'd2) : planes && half ? 4'd2 : 4'd4;
  assign fire   = gearbox_valid && (planes || (state_q == Values && q_tready_i));

  word_gearbox i_gearbox (
      .clk_i,
      .rst_i,
      .data_i (payload_tdata_i),
      .valid_i(payload_tvalid_i),
      .ready_o(payload_tready_o),
      .data_o (words),
      .valid_o(gearbox_valid),
      .take_i (take[2:0]),
      .skip_i (skip),
      .ready_i(fire)
  );

  assign job_ready_o = state_q == Idle;
  assign q_tdata_o   = words;
  assign q_tvalid_o  = gearbox_valid && state_q == Values;

  logic [15:0] tokens_shift_key, tokens_shift_value, groups;
  assign tokens_shift_key = sixteens_q << tokens_o[6];
  assign tokens_shift_value = tokens_o[6] ? segments_q << 2 : tokens_o[5] ? segments_q << 1 : segments_q;
  assign groups = key_o ? tokens_shift_key : tokens_shift_value;

  // U - 3 + bias + 32, held to what matters.
  logic signed [17:0] reach;
  assign reach = 18'(signed'(key_o ? exponents_q[15:0] : exponents_q[31:16])) + (bf16_o ? 18'sd156 : 18'sd44);

  always_ff @(posedge clk_i) begin
    write_o <= {3{fire}} & {state_q == ZHigh, state_q == ZLow, state_q == Codes};
    write_index_o <= {bank_q, index_q};
    plane_o <= words;
    kind_valid_o <= fire && last_q && state_q == ZHigh;

    case (state_q)
      Idle:
      if (job_valid_i) begin
        {key_o, last_o} <= {has_key_i, !has_key_i || !has_value_i};
        {bf16_o, tokens_o, heads_o, head_dim_o} <= {bf16_i, tokens_i, heads_i, head_dim_i};
        exponents_q <= exponents_i;
        state_q <= Rows;
      end
      Rows: begin
        case (head_dim_o)
          16'd64:  {sixteens_q, segments_q} <= {heads_o << 2, heads_o << 1};
          16'd80:  {sixteens_q, segments_q} <= {(heads_o << 2) + heads_o, (heads_o << 1) + heads_o};
          16'd96:  {sixteens_q, segments_q} <= {(heads_o << 2) + (heads_o << 1), (heads_o << 1) + heads_o};
          16'd128: {sixteens_q, segments_q} <= {heads_o << 3, heads_o << 2};
          default: {sixteens_q, segments_q} <= {heads_o << 4, heads_o << 3};
        endcase
        if (in_use_q != 2'd2) state_q <= Sizes;
      end
      Sizes: begin
        half_chunk_q <= groups[0];
        chunks_q <= (groups + 16'd1) >> 1;
        left_q <= (groups + 16'd1) >> 1;
        last_q <= groups <= 16'd2;
        index_q <= '0;
        reach_o <= reach < -18'sd8 ? -10'sd8 : reach > 18'sd300 ? 10'sd300 : reach[9:0];
        state_q <= Codes;
      end
      default:
      if (fire) begin
        index_q <= index_q + 1'b1;
        left_q  <= left_q - 16'd1;
        last_q  <= left_q == 16'd2;
        if (last_q) begin
          index_q <= '0;
          left_q  <= chunks_q;
          last_q  <= chunks_q == 16'd1;
          case (state_q)
            Codes: state_q <= ZLow;
            ZLow:  state_q <= ZHigh;
            ZHigh: begin
              left_q  <= tokens_o[6] ? sixteens_q << 4 : tokens_o[5] ? sixteens_q << 3 : sixteens_q << 2;
              last_q  <= 1'b0;  // 16 at least
              state_q <= Values;
            end
            default: begin
              bank_q <= !bank_q;
              state_q <= last_o ? Idle : Rows;
              {key_o, last_o} <= 2'b01;
            end
          endcase
        end
      end
    endcase

    in_use_q <= in_use_q + 2'(state_q == Sizes) - 2'(kind_done_i);
    if (rst_i) begin
      state_q <= Idle;
      in_use_q <= '0;
      bank_q <= 1'b0;
      write_o <= '0;
      kind_valid_o <= 1'b0;
    end
  end

  logic unused;
  assign unused = &{1'b0, take[3], reach[17:10]};
endmodule

`default_nettype wire
