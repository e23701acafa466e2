`default_nettype none

// The pieces of a payload in their order, and what the record's header says of it. int8_delta_rle: the pieces as
// they come. int4: of each kind the codes, the low bytes of z, its high nibbles, then the pieces with the values'
// nibbles, which wait in their queue for the three cycles that the planes of 32 groups take. A piece a cycle; a job
// begins when its worst case fits the payload ring. A payload that is no smaller than the block is marked: drop.
module payload_join #(
    parameter int unsigned WordBits = 8,
    parameter int unsigned RingBits = 12
) (
    input  wire                       clk_i,
    input  wire                       rst_i,
    // A job; it stands until job_ready_o.
    input  wire                       job_valid_i,
    output logic                      job_ready_o,
    input  wire                       coded_i,          // there is a payload at all
    input  wire                       int4_i,
    input  wire                       has_key_i,
    input  wire                       has_value_i,
    input  wire                       dim80_i,
    input  wire  [         2:1]       sixteens_i,       // of tokens: 2 or 4; else 1
    input  wire  [WordBits-1:0]       row_segments_i,
    input  wire  [WordBits+1:0]       row_halves_i,
    input  wire  [  RingBits:0]       beats_i,
    input  wire  [         1:0][15:0] params_i,         // of K and of V: U, or the largest magnitude
    input  wire                       room_i,           // for beats_i
    // Codes and zero points of int4.
    output logic                      read_o,
    output logic [WordBits-1:0]       read_word_o,
    input  wire  [        31:0][19:0] read_i,           // {z, code} of 32 groups, a cycle later
    // Pieces of values.
    input  wire  [       511:0]       values_i,
    input  wire  [         6:0]       values_bytes_i,
    input  wire                       values_last_i,    // of their kind
    input  wire                       values_valid_i,
    output logic                      values_ready_o,
    // Pieces of the payload.
    output logic                      valid_o,
    output logic [         6:0]       bytes_o,
    output logic                      last_o,
    output logic                      drop_o,
    output logic [       511:0]       data_o,
    // What came of the job.
    output logic                      result_valid_o,
    output logic                      result_packed_o,  // a payload was made
    output logic                      result_coded_o,   // and is the record's
    output logic [        31:0]       result_bytes_o,
    output logic [        63:0]       result_params_o
);
  typedef enum logic [2:0] {
    Idle,
    Begin,
    Planes,
    Drain,
    Values
  } state_e;
  typedef enum logic [1:0] {
    Codes,
    Low,
    High
  } plane_e;
  localparam int unsigned CountBits = RingBits + 7;  // of the bytes of a block

  state_e state_q;
  plane_e plane_q, read_plane_q;
  logic kind_q, read_q, read_narrow_q;
  logic [WordBits-1:0] word_q, first_word_q;
  logic [WordBits+2:0] halves, halves_q;  // groups still to be read, in sixteens
  logic [1:0] third_q;
  logic narrow, word_last;

  assign halves = kind_q ? (WordBits + 3)'(row_segments_i) << (sixteens_i[2] ? 2 : sixteens_i[1] ? 1 : 0) :
      (WordBits + 3)'(row_halves_i) << sixteens_i[2];
  assign narrow = (!kind_q && dim80_i && third_q == 2'd2) || halves_q == 1;
  assign word_last = halves_q == (narrow ? 1 : 2);
  assign read_o = state_q == Planes;
  assign read_word_o = word_q;
  assign values_ready_o = state_q == Values;

  logic take, kind_end, block_end, pass;
  assign take = values_ready_o && values_valid_i;
  assign kind_end = take && values_last_i;
  assign block_end = kind_end && (kind_q || !has_value_i);
  assign pass = state_q == Idle && job_valid_i && !coded_i;
  assign job_ready_o = block_end || pass;

  always_ff @(posedge clk_i) begin
    case (state_q)
      Idle: begin
        kind_q <= !has_key_i;
        plane_q <= Codes;
        first_word_q <= '0;
        if (job_valid_i && coded_i && room_i) state_q <= int4_i ? Begin : Values;
      end
      Begin: begin
        word_q   <= first_word_q;
        third_q  <= '0;
        halves_q <= halves;
        state_q  <= Planes;
      end
      Planes: begin
        word_q   <= word_q + 1'b1;
        third_q  <= third_q == 2'd2 ? '0 : third_q + 1'b1;
        halves_q <= halves_q - (narrow ? (WordBits + 3)'(1) : (WordBits + 3)'(2));
        if (word_last) begin
          plane_q <= plane_q == Codes ? Low : plane_q == Low ? High : Codes;
          state_q <= plane_q == High ? Drain : Begin;
        end
      end
      Drain: begin
        first_word_q <= word_q;
        state_q <= Values;
      end
      Values:
      if (kind_end) begin
        kind_q  <= 1'b1;
        state_q <= block_end ? Idle : int4_i ? Begin : Values;
      end
      default: state_q <= Idle;
    endcase
    if (rst_i) state_q <= Idle;
  end

  // What was read becomes a piece; values pass.
  logic [511:0] planes;
  logic [  6:0] bytes;
  logic [CountBits-1:0] count, count_q, key_bytes, key_bytes_q, block_bytes;
  always_comb begin
    planes = '0;
    for (int i = 0; i < 32; ++i) begin
      case (read_plane_q)
        Codes:   planes[8*i+:8] = read_i[i][7:0];
        Low:     planes[8*i+:8] = read_i[i][15:8];
        default: planes[4*i+:4] = read_i[i][19:16];
      endcase
    end
    bytes = read_q ? 7'd32 >> read_narrow_q >> (read_plane_q == High) : take ? values_bytes_i : '0;
    count = count_q + CountBits'(bytes);
    key_bytes = kind_end && !kind_q ? count : key_bytes_q;
    block_bytes = CountBits'(beats_i) << 6;
  end

  always_ff @(posedge clk_i) begin
    read_q <= read_o && !rst_i;
    read_plane_q <= plane_q;
    read_narrow_q <= narrow;
    count_q <= block_end || rst_i ? '0 : count;
    key_bytes_q <= block_end || rst_i ? '0 : key_bytes;
    valid_o <= (read_q || take) && !rst_i;
    bytes_o <= bytes;
    data_o <= read_q ? planes : values_i;
    last_o <= block_end;
    drop_o <= count >= block_bytes;
    result_valid_o <= (block_end || pass) && !rst_i;
    result_packed_o <= block_end;
    result_coded_o <= block_end && count < block_bytes;
    result_bytes_o <= 32'(block_end && count < block_bytes ? count : block_bytes);
    result_params_o <= '0;
    if (block_end && count < block_bytes) begin
      if (has_key_i) result_params_o[15:0] <= params_i[0];
      if (has_value_i) result_params_o[31:16] <= params_i[1];
      if (!int4_i) result_params_o[63:32] <= 32'(key_bytes);
    end
  end
endmodule

`default_nettype wire
