`default_nettype none

// First part of kv_compress: descriptors are checked ahead, the beats of the good ones go to the ring of raw blocks
// and past whatever looks at them on the way. A block follows the other with no cycle between, while there is room:
// in the ring, for another job, and for the extremes of int4.
module compress_intake
  import speckv_pkg::*;
#(
    parameter  int unsigned MaxBlockBytes = 131072,
    parameter  int unsigned RingBeats     = 4096,
    parameter  int unsigned WordBits      = 8,
    localparam int unsigned RingBits      = $clog2(RingBeats)
) (
    input  wire                                   clk_i,
    input  wire                                   rst_i,
    input  wire descriptor_t                      descriptor_tdata_i,
    input  wire                                   descriptor_tvalid_i,
    output logic                                  descriptor_tready_o,
    input  wire              [       511:0]       block_tdata_i,
    input  wire                                   block_tvalid_i,
    output logic                                  block_tready_o,
    // The block as it goes into the ring.
    output logic                                  write_o,
    output logic             [RingBits-1:0]       write_index_o,
    output logic             [       511:0]       write_data_o,
    output logic                                  write_first_o,        // of the block
    output logic                                  write_last_o,
    input  wire              [  RingBits:0]       release_i,            // beats that are needed no longer
    // The block of an int4 job, on its way.
    output logic                                  int4_load_o,
    output logic                                  int4_valid_o,
    input  wire                                   int4_ready_i,
    input  wire                                   int4_done_i,          // the block before it is through, or goes now
    input  wire                                   int4_room_i,
    // Geometry of the block that is loaded.
    output logic             [WordBits-1:0]       row_segments_o,
    output logic             [         6:0]       tokens_o,
    output logic                                  dim80_o,
    output logic                                  has_key_o,
    output logic                                  has_value_o,
    // A job: a block that is in, or a descriptor that was refused.
    input  wire                                   job_room_i,
    output logic                                  job_valid_o,
    output descriptor_t                           job_descriptor_o,
    output logic             [        15:0]       job_status_o,
    output logic             [        31:0]       job_value_o,
    output logic             [        31:0]       job_limit_o,
    output logic             [  RingBits:0]       job_beats_o,
    output logic             [         1:0][14:0] job_largest_o,        // magnitude bits of K and V, if 16 bits wide
    output logic             [WordBits-1:0]       job_row_segments_o,
    output logic             [WordBits+1:0]       job_row_halves_o
);
  // The descriptor that comes next, checked while the block before it comes in.
  typedef enum logic [1:0] {
    Empty,
    Checking,
    Checked
  } next_e;
  next_e next_q;
  descriptor_t next_descriptor_q;
  logic checked;
  logic [15:0] status;
  logic [31:0] value, limit;
  logic [19:0] key_beats, value_beats;
  logic [WordBits-1:0] next_segments_q;
  logic [WordBits+1:0] next_halves_q;

  assign descriptor_tready_o = next_q == Empty;

  descriptor_check #(
      .MaxBlockBytes(MaxBlockBytes)
  ) i_check (
      .clk_i,
      .rst_i,
      .descriptor_i (descriptor_tdata_i),
      .compress_i   (1'b1),
      .valid_i      (descriptor_tvalid_i && descriptor_tready_o),
      .valid_o      (checked),
      .status_o     (status),
      .value_o      (value),
      .limit_o      (limit),
      .key_beats_o  (key_beats),
      .value_beats_o(value_beats)
  );

  always_ff @(posedge clk_i) begin
    automatic logic [WordBits+1:0] heads = (WordBits + 2)'(next_descriptor_q.heads);
    case (next_descriptor_q.head_dim)
      16'd64:  {next_segments_q, next_halves_q} <= {WordBits'(heads << 1), heads << 2};
      16'd80:  {next_segments_q, next_halves_q} <= {WordBits'(heads + (heads << 1)), heads + (heads << 2)};
      16'd96:  {next_segments_q, next_halves_q} <= {WordBits'(heads + (heads << 1)), (heads << 1) + (heads << 2)};
      16'd128: {next_segments_q, next_halves_q} <= {WordBits'(heads << 2), heads << 3};
      default: {next_segments_q, next_halves_q} <= {WordBits'(heads << 3), heads << 4};
    endcase
  end

  // The block that comes in.
  descriptor_t descriptor_q;
  logic active_q, int4_q, in_key_q, first_q;
  logic [RingBits:0] left_q, value_beats_q, beats_q, occupied_q;
  logic [WordBits-1:0] segments_q;
  logic [WordBits+1:0] halves_q;
  logic take, kind_last, block_last, start, refuse, next_int4, draining;

  assign block_tready_o = active_q && !occupied_q[RingBits] && (!int4_q || int4_ready_i);
  assign take = block_tvalid_i && block_tready_o;
  assign int4_valid_o = block_tvalid_i && active_q && int4_q && !occupied_q[RingBits];
  assign kind_last = take && left_q == 1;
  assign block_last = kind_last && !(in_key_q && value_beats_q != '0);
  assign next_int4 = next_descriptor_q.scheme == SchemeInt4;
  assign start = next_q == Checked && status == StatusOk && job_room_i && (!active_q || block_last) &&
      (!next_int4 || (int4_room_i && int4_done_i));
  assign refuse = next_q == Checked && status != StatusOk && job_room_i && !active_q && !draining;
  assign int4_load_o = start && next_int4;
  // The segments take the geometry as it is loaded.
  assign row_segments_o = next_segments_q;
  assign tokens_o = next_descriptor_q.tokens[6:0];
  assign dim80_o = next_descriptor_q.head_dim == 16'd80;
  assign has_key_o = |key_beats;
  assign has_value_o = |value_beats;

  always_ff @(posedge clk_i) begin
    if (descriptor_tvalid_i && descriptor_tready_o) begin
      next_q <= Checking;
      next_descriptor_q <= descriptor_tdata_i;
    end
    if (checked) next_q <= Checked;
    if (start || refuse) next_q <= Empty;
    if (block_last) active_q <= 1'b0;
    if (take) begin
      left_q  <= left_q - 1'b1;
      first_q <= 1'b0;
    end
    if (kind_last) begin
      left_q   <= value_beats_q;
      in_key_q <= 1'b0;
    end
    if (start) begin
      active_q <= 1'b1;
      first_q <= 1'b1;
      int4_q <= next_int4;
      descriptor_q <= next_descriptor_q;
      in_key_q <= |key_beats;
      left_q <= (RingBits + 1)'(|key_beats ? key_beats : value_beats);
      value_beats_q <= (RingBits + 1)'(value_beats);
      beats_q <= (RingBits + 1)'(key_beats + value_beats);
      segments_q <= next_segments_q;
      halves_q <= next_halves_q;
    end
    occupied_q <= occupied_q + (RingBits + 1)'(take) - release_i;
    if (rst_i) begin
      next_q <= Empty;
      active_q <= 1'b0;
      occupied_q <= '0;
    end
  end

  // On its way: into the ring, and three stages that find each kind's largest magnitude. The job comes behind them.
  logic [3:0] last_q, valid_q;
  logic [2:0] kind_first_q, kind_last_q, kind_q;
  logic [7:0][14:0] eighths, eighths_q;
  logic [14:0] tree, tree_q, largest, largest_q;
  logic kind_first;

  assign draining   = |valid_q;
  assign kind_first = first_q || (!in_key_q && left_q == value_beats_q);

  always_comb begin
    for (int g = 0; g < 8; ++g) begin
      eighths[g] = '0;
      for (int i = 0; i < 4; ++i)
      if (write_data_o[64*g+16*i+:15] > eighths[g]) eighths[g] = write_data_o[64*g+16*i+:15];
    end
    tree = '0;
    for (int g = 0; g < 8; ++g) if (eighths_q[g] > tree) tree = eighths_q[g];
    largest = kind_first_q[2] || tree_q > largest_q ? tree_q : largest_q;
  end

  assign write_o = valid_q[0];
  assign write_last_o = last_q[0];
  always_ff @(posedge clk_i) begin
    write_data_o  <= block_tdata_i;
    write_first_o <= first_q;
    if (write_o) write_index_o <= write_index_o + 1'b1;
    valid_q <= {valid_q[2:0], take};
    last_q <= {last_q[2:0], block_last};
    kind_first_q <= {kind_first_q[1:0], kind_first};
    kind_last_q <= {kind_last_q[1:0], kind_last};
    kind_q <= {kind_q[1:0], !in_key_q};
    eighths_q <= eighths;
    tree_q <= tree;
    if (valid_q[2]) begin
      largest_q <= largest;
      if (kind_last_q[2]) job_largest_o[kind_q[2]] <= largest;
    end
    job_valid_o <= refuse || (valid_q[3] && last_q[3]);
    if (block_last || refuse) begin
      job_descriptor_o <= block_last ? descriptor_q : next_descriptor_q;
      job_status_o <= block_last ? StatusOk : status;
      {job_value_o, job_limit_o} <= block_last ? '0 : {value, limit};
      job_beats_o <= block_last ? beats_q : '0;
      job_row_segments_o <= segments_q;
      job_row_halves_o <= halves_q;
    end
    if (rst_i) begin
      valid_q <= '0;
      write_index_o <= '0;
      job_valid_o <= 1'b0;
    end
  end
endmodule

`default_nettype wire
