`default_nettype none

// kv_compress and kv_decompress behind the DMA engine's one set of codec streams: `compress_i` says which one a run
// uses. Between runs both are empty, so nothing has to be remembered when it changes.
module codec_switch
  import speckv_pkg::*;
#(
    parameter int unsigned MaxBlockBytes = 131072
) (
    input  wire          clk_i,
    input  wire          rst_i,
    input  wire          compress_i,
    input  wire  [511:0] descriptor_tdata_i,
    input  wire          descriptor_tvalid_i,
    output logic         descriptor_tready_o,
    input  wire  [511:0] source_tdata_i,
    input  wire          source_tlast_i,
    input  wire          source_tvalid_i,
    output logic         source_tready_o,
    output logic [511:0] target_tdata_o,
    output logic         target_tlast_o,
    output logic         target_tvalid_o,
    input  wire          target_tready_i,
    output logic [127:0] completion_tdata_o,
    output logic         completion_tvalid_o,
    input  wire          completion_tready_i
);
  logic [1:0] descriptor_ready, source_ready, target_last, target_valid, completion_valid;
  logic [1:0][511:0] target;
  logic [1:0][127:0] completion;
  logic target_ready, between_q, open;

  kv_compress #(
      .MaxBlockBytes(MaxBlockBytes)
  ) u_compress (
      .clk_i,
      .rst_i,
      .descriptor_tdata_i,
      .descriptor_tvalid_i(descriptor_tvalid_i & compress_i),
      .descriptor_tready_o(descriptor_ready[1]),
      .block_tdata_i      (source_tdata_i),
      .block_tvalid_i     (source_tvalid_i & compress_i),
      .block_tready_o     (source_ready[1]),
      .record_tdata_o     (target[1]),
      .record_tlast_o     (target_last[1]),
      .record_tvalid_o    (target_valid[1]),
      .record_tready_i    (target_ready & compress_i),
      .completion_tdata_o (completion[1]),
      .completion_tvalid_o(completion_valid[1]),
      .completion_tready_i(completion_tready_i & compress_i)
  );

  kv_decompress #(
      .MaxBlockBytes(MaxBlockBytes)
  ) u_decompress (
      .clk_i,
      .rst_i,
      .descriptor_tdata_i,
      .descriptor_tvalid_i(descriptor_tvalid_i & ~compress_i),
      .descriptor_tready_o(descriptor_ready[0]),
      .record_tdata_i     (source_tdata_i),
      .record_tlast_i     (source_tlast_i),
      .record_tvalid_i    (source_tvalid_i & ~compress_i),
      .record_tready_o    (source_ready[0]),
      .block_tdata_o      (target[0]),
      .block_tlast_o      (target_last[0]),
      .block_tvalid_o     (target_valid[0]),
      .block_tready_i     (target_ready & ~compress_i),
      .completion_tdata_o (completion[0]),
      .completion_tvalid_o(completion_valid[0]),
      .completion_tready_i(completion_tready_i & ~compress_i)
  );

  // The engine takes nothing of the next descriptor before a completion; a codec may be ahead by then.
  assign open = ~(between_q & completion_valid[compress_i]);
  assign target_ready = target_tready_i & open;
  always_ff @(posedge clk_i) begin
    if (target_tvalid_o && target_tready_i) between_q <= target_tlast_o;
    if (rst_i) between_q <= 1'b1;
  end

  assign descriptor_tready_o = descriptor_ready[compress_i];
  assign source_tready_o     = source_ready[compress_i];
  assign target_tdata_o      = target[compress_i];
  assign target_tlast_o      = target_last[compress_i];
  assign target_tvalid_o     = target_valid[compress_i] & open;
  assign completion_tdata_o  = completion[compress_i];
  assign completion_tvalid_o = completion_valid[compress_i];
endmodule

`default_nettype wire
