`default_nettype none

// Takes descriptors one after the other: checks them, asks for what they read, hands them to the codec and says
// what is to be written where (plan_*). Plans and descriptors wait in queues of 16, so that reads run ahead. A descriptor that fails a check is a plan with a status and nothing else: no codec sees it.
module dma_issue
  import speckv_pkg::*;
#(
    parameter int unsigned MaxBlockBytes = 131072,
    parameter logic [7:0]  LastScheme    = SchemeInt4
) (
    input  wire                     clk_i,
    input  wire                     rst_i,
    input  wire                     is_copy_i,
    input  wire                     is_compress_i,
    input  wire                     set_scheme_i,         // in compression, instead of the descriptors'
    input  wire              [ 7:0] scheme_i,
    input  wire              [57:0] records_line_i,
    input  wire              [63:0] records_bytes_i,
    input  wire              [57:0] blocks_line_i,
    input  wire              [63:0] blocks_bytes_i,
    input  wire                     drop_i,               // descriptors taken from now on are not run
    output logic                    idle_o,
    input  wire descriptor_t        descriptor_i,
    input  wire              [ 1:0] response_i,           // of reading the descriptor
    input  wire                     descriptor_valid_i,
    output logic                    descriptor_ready_o,
    // To the reader.
    output logic             [57:0] run_line_o,
    output logic             [25:0] run_beats_o,
    output logic                    run_final_o,
    output logic                    run_valid_o,
    input  wire                     run_ready_i,
    // To the codec.
    output descriptor_t             codec_descriptor_o,
    output logic                    codec_valid_o,
    input  wire                     codec_ready_i,
    // The oldest plan: a verdict that is not ok, or up to two runs of lines to write (the second one only if its
    // beats are not 0).
    output logic                    planned_o,            // a plan was made
    output completion_t             plan_verdict_o,
    output logic             [57:0] plan_first_line_o,
    output logic             [25:0] plan_first_beats_o,
    output logic             [57:0] plan_second_line_o,
    output logic             [19:0] plan_second_beats_o,
    output logic                    plan_valid_o,
    input  wire                     plan_ready_i
);
  localparam int unsigned InFlight = 16;

  typedef enum logic [2:0] {
    Take,
    Check,
    Bound,
    Settle,
    Judge,
    Send,
    ReadFirst,
    ReadSecond
  } state_e;
  state_e state_q;
  descriptor_t d_q;
  logic [1:0] response_q;

  logic check_valid;
  logic [15:0] check_status;
  logic [31:0] check_value, check_limit;
  logic [19:0] key_beats, value_beats;
  logic check_start_q;
  descriptor_check #(
      .MaxBlockBytes(MaxBlockBytes),
      .LastScheme(LastScheme)
  ) u_check (
      .clk_i,
      .rst_i,
      .descriptor_i (d_q),
      .compress_i   (is_compress_i),
      .valid_i      (check_start_q),
      .valid_o      (check_valid),
      .status_o     (check_status),
      .value_o      (check_value),
      .limit_o      (check_limit),
      .key_beats_o  (key_beats),
      .value_beats_o(value_beats)
  );

  // A copy has places and a size, no shape.
  logic [15:0] copy_status;
  logic [31:0] copy_value, copy_limit;
  always_comb begin
    {copy_status, copy_value, copy_limit} = {StatusOk, 64'd0};
    if (d_q.record_offset[5:0] != '0)
      {copy_status, copy_value, copy_limit} = {StatusMisaligned, d_q.record_offset[31:0], LineBytes};
    else if (d_q.key_offset[5:0] != '0)
      {copy_status, copy_value, copy_limit} = {StatusMisaligned, d_q.key_offset[31:0], LineBytes};
    else if (d_q.record_capacity[5:0] != '0)
      {copy_status, copy_value, copy_limit} = {StatusMisaligned, d_q.record_capacity, LineBytes};
    else if (d_q.record_capacity == '0)
      {copy_status, copy_value, copy_limit} = {StatusRecordTooSmall, d_q.record_capacity, LineBytes};
  end

  logic [15:0] bound_status;
  logic [31:0] bound_value, bound_limit;
  dma_bounds u_bounds (
      .clk_i,
      .records_bytes_i,
      .blocks_bytes_i,
      .record_offset_i(d_q.record_offset),
      .key_offset_i   (d_q.key_offset),
      .value_offset_i (d_q.value_offset),
      .record_bytes_i (d_q.record_capacity),
      .key_bytes_i    (is_copy_i ? d_q.record_capacity : {6'd0, key_beats, 6'd0}),
      .value_bytes_i  (is_copy_i ? '0 : {6'd0, value_beats, 6'd0}),
      .status_o       (bound_status),
      .value_o        (bound_value),
      .limit_o        (bound_limit)
  );

  completion_t verdict_q;
  logic [57:0] record_line_q, key_line_q, value_line_q;
  logic [25:0] capacity_beats, block_beats;
  assign capacity_beats = d_q.record_capacity[31:6];
  assign block_beats = 26'(key_beats) + 26'(value_beats);

  logic ok, has_both;
  assign ok = verdict_q.status == StatusOk;
  assign has_both = !is_copy_i && key_beats != '0 && value_beats != '0;

  // What a block's first and second kind are, wherever they are read from or written to.
  logic [57:0] kind_line;
  logic [25:0] kind_beats;
  assign kind_line  = is_copy_i || key_beats != '0 ? key_line_q : value_line_q;
  assign kind_beats = is_copy_i ? capacity_beats : key_beats != '0 ? 26'(key_beats) : 26'(value_beats);

  logic plan_room, codec_room, sends;
  assign sends = state_q == Send && plan_room && (codec_room || !ok || is_copy_i);
  assign planned_o = sends;
  // verilator lint_off PINCONNECTEMPTY
  fifo #(
      .Width($bits(completion_t) + 58 + 26 + 58 + 20),
      .Depth(InFlight)
  ) u_plans (
      .clk_i,
      .rst_i,
      .data_i({
        verdict_q,
        is_compress_i ? record_line_q : kind_line,
        is_compress_i ? capacity_beats : kind_beats,
        value_line_q,
        has_both && !is_compress_i ? value_beats : 20'd0
      }),
      .valid_i(sends),
      .ready_o(plan_room),
      .data_o({plan_verdict_o, plan_first_line_o, plan_first_beats_o, plan_second_line_o, plan_second_beats_o}),
      .valid_o(plan_valid_o),
      .ready_i(plan_ready_i),
      .count_o()
  );
  fifo #(
      .Width(512),
      .Depth(InFlight)
  ) u_descriptors (
      .clk_i,
      .rst_i,
      .data_i (d_q),
      .valid_i(sends && ok && !is_copy_i),
      .ready_o(codec_room),
      .data_o (codec_descriptor_o),
      .valid_o(codec_valid_o),
      .ready_i(codec_ready_i),
      .count_o()
  );
  // verilator lint_on PINCONNECTEMPTY

  // A record is never longer than its header and the block itself.
  logic [25:0] record_beats;
  assign record_beats = !is_copy_i && capacity_beats > block_beats ? block_beats + 1'b1 : capacity_beats;

  always_comb begin
    run_line_o  = record_line_q;
    run_beats_o = record_beats;
    run_final_o = 1'b1;
    if (state_q == ReadSecond) {run_line_o, run_beats_o} = {value_line_q, 26'(value_beats)};
    else if (is_compress_i) {run_line_o, run_beats_o, run_final_o} = {kind_line, kind_beats, !has_both};
  end

  // The reads follow the plan.
  assign run_valid_o = state_q == ReadFirst || state_q == ReadSecond;
  assign descriptor_ready_o = state_q == Take;
  assign idle_o = state_q == Take;

  always_ff @(posedge clk_i) begin
    check_start_q <= 1'b0;
    unique case (state_q)
      Take:
      if (descriptor_valid_i && !drop_i) begin
        d_q <= descriptor_i;
        if (set_scheme_i) d_q.scheme <= scheme_i;
        response_q <= response_i;
        check_start_q <= 1'b1;
        state_q <= Check;
      end
      Check: if (check_valid) state_q <= Bound;
      Bound: state_q <= Settle;
      Settle: state_q <= Judge;
      Judge: begin
        verdict_q <= '0;
        if (response_q != '0) {verdict_q.status, verdict_q.value} <= {StatusBusError, 32'(response_q)};
        else if (is_copy_i ? copy_status != StatusOk : check_status != StatusOk) begin
          verdict_q.status <= is_copy_i ? copy_status : check_status;
          verdict_q.value  <= is_copy_i ? copy_value : check_value;
          verdict_q.limit  <= is_copy_i ? copy_limit : check_limit;
        end else if (bound_status != StatusOk)
          {verdict_q.status, verdict_q.value, verdict_q.limit} <= {bound_status, bound_value, bound_limit};
        record_line_q <= records_line_i + d_q.record_offset[63:6];
        key_line_q <= blocks_line_i + d_q.key_offset[63:6];
        value_line_q <= blocks_line_i + d_q.value_offset[63:6];
        state_q <= Send;
      end
      Send: if (sends) state_q <= ok ? ReadFirst : Take;
      ReadFirst: if (run_ready_i) state_q <= is_compress_i && has_both ? ReadSecond : Take;
      ReadSecond: if (run_ready_i) state_q <= Take;
      default: ;
    endcase
    if (rst_i) state_q <= Take;
  end
endmodule

`default_nettype wire
