`default_nettype none

// Last part of kv_compress: records out, header first, then the payload or the block itself, a beat a cycle and one
// record right behind the other; a completion behind the last beat of each, in the order of the descriptors.
module compress_emit
  import speckv_pkg::*;
#(
    parameter int unsigned RingBits = 12
) (
    input  wire                                clk_i,
    input  wire                                rst_i,
    input  wire                                record_valid_i,
    output logic                               record_ready_o,
    input  wire                                record_coded_i,
    input  wire                 [  RingBits:0] record_beats_i,
    input  wire                 [  RingBits:0] record_block_i,
    input  wire record_header_t                record_header_i,
    input  wire completion_t                   record_completion_i,
    // The rings of blocks and of payloads; what was read is released.
    output logic                               block_read_o,
    output logic                [RingBits-1:0] block_index_o,
    input  wire                 [       511:0] block_data_i,
    output logic                [  RingBits:0] block_release_o,
    output logic                               payload_read_o,
    output logic                [RingBits-1:0] payload_index_o,
    input  wire                 [       511:0] payload_data_i,
    output logic                [       511:0] record_tdata_o,
    output logic                               record_tlast_o,
    output logic                               record_tvalid_o,
    input  wire                                record_tready_i,
    output completion_t                        completion_tdata_o,
    output logic                               completion_tvalid_o,
    input  wire                                completion_tready_i
);
  localparam int unsigned Waiting = 16;  // beats on their way or waiting
  typedef enum logic [1:0] {
    Header,
    Block,
    Payload
  } source_e;

  logic [RingBits:0] left_q;
  logic coded_q, issue, take, credit, completion_ready;
  logic [4:0] credits_q, unused_beats, unused_completions;
  source_e source_q;
  logic valid_q, last_q, unused_ready;
  logic [511:0] header_q, data;

  assign credit = credits_q != '0;
  assign take = left_q == '0 && record_valid_i && credit && completion_ready;
  assign issue = left_q != '0 && credit;
  assign record_ready_o = take;
  assign block_read_o = issue && !coded_q;
  assign payload_read_o = issue && coded_q;

  always_ff @(posedge clk_i) begin
    valid_q  <= (issue || (take && record_beats_i != '0)) && !rst_i;
    last_q   <= issue && left_q == 1;
    source_q <= !issue ? Header : coded_q ? Payload : Block;
    if (issue) left_q <= left_q - 1'b1;
    if (take) begin
      left_q   <= record_beats_i;
      coded_q  <= record_coded_i;
      header_q <= record_header_i;
    end
    // A block whose payload goes out is not needed any more.
    block_release_o <= take && record_beats_i != '0 && record_coded_i ? record_block_i : (RingBits + 1)'(block_read_o);
    if (take && record_beats_i != '0 && record_coded_i) block_index_o <= block_index_o + record_block_i[RingBits-1:0];
    else if (block_read_o) block_index_o <= block_index_o + 1'b1;
    if (payload_read_o) payload_index_o <= payload_index_o + 1'b1;
    credits_q <= credits_q + 5'(record_tvalid_o && record_tready_i) - 5'(issue || (take && record_beats_i != '0));
    if (rst_i) begin
      left_q <= '0;
      {block_index_o, payload_index_o, block_release_o} <= '0;
      credits_q <= 5'(Waiting);
    end
  end

  assign data = source_q == Header ? header_q : source_q == Block ? block_data_i : payload_data_i;
  fifo #(
      .Width(513),
      .Depth(Waiting)
  ) i_beats (
      .clk_i,
      .rst_i,
      .data_i ({last_q, data}),
      .valid_i(valid_q),
      .ready_o(unused_ready),
      .data_o ({record_tlast_o, record_tdata_o}),
      .valid_o(record_tvalid_o),
      .ready_i(record_tready_i),
      .count_o(unused_beats)
  );

  // A completion waits until its record has gone.
  logic has_record, completion_valid, completion_pop, gone;
  logic [5:0] gone_q;  // records whose completion has not gone yet
  fifo #(
      .Width(129),
      .Depth(Waiting)
  ) i_completions (
      .clk_i,
      .rst_i,
      .data_i ({record_beats_i != '0, record_completion_i}),
      .valid_i(take),
      .ready_o(completion_ready),
      .data_o ({has_record, completion_tdata_o}),
      .valid_o(completion_valid),
      .ready_i(completion_pop),
      .count_o(unused_completions)
  );
  assign gone = record_tvalid_o && record_tready_i && record_tlast_o;
  assign completion_tvalid_o = completion_valid && (!has_record || gone_q != '0);
  assign completion_pop = completion_tvalid_o && completion_tready_i;
  always_ff @(posedge clk_i) begin
    gone_q <= gone_q + 6'(gone) - 6'(completion_pop && has_record);
    if (rst_i) gone_q <= '0;
  end

  logic unused;
  assign unused = &{1'b0, unused_ready, unused_beats, unused_completions};
endmodule

`default_nettype wire
