`default_nettype none

// Takes commands from the ring in memory, runs their tables on the DMA engine and writes their completions. The
// meaning of commands is docs/driver.md's; hls/spec.toml has their bits.
//
// One thing at a time, in this order of preference: polls that are due; a table that has ended; deadlines; what
// cancels and closes; prefetches to supersede; the next dma_batch to take and to start; the ring; a prefetch, once
// the ring is empty and no dma_batch waits. A prefetch goes on slice by slice, a dma_batch between two of them.
module command_processor
  import speckv_pkg::*;
#(
    parameter int unsigned Entries = 64,  // commands that are held
    parameter int unsigned Prefetches = 32  // of those, prefetches that may wait, of all owners; the oldest gives way
) (
    input  wire                clk_i,
    input  wire                rst_i,
    input  csr_state_t         state_i,
    input  csr_order_t         order_i,
    output csr_value_t         value_o,
    output csr_event_t         event_o,
    // To the DMA engine.
    output dma_job_t           dma_job_o,
    output logic               dma_job_valid_o,
    input  wire                dma_job_ready_i,
    input  dma_done_t          dma_done_i,
    input  wire                dma_done_valid_i,
    output logic               dma_done_ready_o,
    output logic               dma_cancel_o,      // the table that runs has missed its deadline: start no more
    // To the rings and the buffer table: single lines.
    output logic       [ 63:0] m_axi_araddr_o,
    output logic               m_axi_arvalid_o,
    input  wire                m_axi_arready_i,
    input  wire        [511:0] m_axi_rdata_i,
    input  wire        [  1:0] m_axi_rresp_i,
    input  wire                m_axi_rvalid_i,
    output logic               m_axi_rready_o,
    output logic       [ 63:0] m_axi_awaddr_o,
    output logic               m_axi_awvalid_o,
    input  wire                m_axi_awready_i,
    output logic       [511:0] m_axi_wdata_o,
    output logic               m_axi_wvalid_o,
    input  wire                m_axi_wready_i,
    input  wire        [  1:0] m_axi_bresp_i,
    input  wire                m_axi_bvalid_i,
    output logic               m_axi_bready_o
);
  localparam int unsigned IndexBits = $clog2(Entries);
  localparam logic [2:0] Demand = 3'b001;
  localparam logic [2:0] Prefetch = 3'b010;
  localparam logic [2:0] Any = 3'b111;

  typedef enum logic [3:0] {
    Rest,
    Fetch,
    Fetched,
    Classify,
    Scan,
    Load,
    Loaded,
    Resolve,
    Start,
    End,
    Ending
  } state_e;
  // What a scan is for.
  typedef enum logic [2:0] {
    ForPoll,
    ForCancel,
    ForClose,
    ForSupersede,
    ForRoom,
    ForDemand,
    ForPrefetch
  } purpose_e;

  // A command that has been taken to run.
  typedef struct packed {
    logic                 valid;
    logic                 stop;          // a prefetch: end after this slice
    logic [IndexBits-1:0] index;
    logic [47:0]          since;
    logic [47:0]          deadline;
    command_t             command;
    buffer_entry_t [4:0]  buffers;
    logic [31:0]          ran;           // descriptors
    logic [63:0]          bytes;
    logic [31:0]          failed;
    logic [31:0]          first_failed;
    logic [31:0]          value;
    logic [31:0]          limit;
    logic [15:0]          block_status;
  } lane_t;

  state_e state_q;
  purpose_e purpose_q;
  lane_t [1:0] lane_q;  // 0: dma_batch, 1: prefetch

  // What is to be looked for, and whose.
  logic poll_due_q, cancel_due_q, supersede_due_q;
  logic [31:0] poll_owner_q, cancel_owner_q, supersede_owner_q;

  // Time, and the parameters.
  logic [55:0] time_q;  // 1/256 ns
  logic [47:0] now;
  logic [ 8:0] depth_q;
  logic [ 2:0] scheme_q;
  logic [ 2:0] runs_q;
  logic [16:0] slice_q;
  logic [31:0] timeout_us_q;
  assign now = time_q[55:8];
  always_ff @(posedge clk_i) time_q <= rst_i ? '0 : time_q + 56'(state_i.clock_period);

  // The ring.
  logic [31:0] head_q;
  logic halted_q;
  logic enable, ring_empty;
  assign enable = state_i.control;
  assign ring_empty = head_q == state_i.command_tail;

  logic [63:0] slot_address;
  assign slot_address = state_i.command_base + {26'd0, head_q & ((32'd1 << state_i.command_slots_log2) - 32'd1), 6'd0};

  logic resolve_request_valid;
  logic [63:0] resolve_request_address;
  logic line_ready, line_valid, line_error;
  logic [511:0] line;
  axi_line_reader u_reader (
      .clk_i,
      .rst_i,
      .request_address_i(state_q == Fetch ? slot_address : resolve_request_address),
      .request_valid_i  (state_q == Fetch || resolve_request_valid),
      .request_ready_o  (line_ready),
      .response_data_o  (line),
      .response_error_o (line_error),
      .response_valid_o (line_valid),
      .m_axi_araddr_o,
      .m_axi_arvalid_o,
      .m_axi_arready_i,
      .m_axi_rdata_i,
      .m_axi_rresp_i,
      .m_axi_rvalid_i,
      .m_axi_rready_o
  );

  command_t command_q;  // the one fetched, or loaded from the store
  logic [47:0] since_q;
  logic [2:0] check_class;
  logic check_set, check_bad;
  logic [31:0] check_value, check_limit;
  command_check u_check (
      .command_i(command_q),
      .class_o  (check_class),
      .set_o    (check_set),
      .bad_o    (check_bad),
      .value_o  (check_value),
      .limit_o  (check_limit)
  );

  // The commands held.
  logic store_full, store_polls, store_empty, push, take_q, end_q;
  logic [2:0] waiting;
  logic [IndexBits:0] prefetches;
  logic scan_q, scan_done, scan_poll;
  logic [2:0] scan_classes_q;
  logic scan_waiting_q, scan_any_q;
  logic [31:0] scan_owner_q;
  logic [IndexBits:0] scan_count;
  logic [IndexBits-1:0] scan_index, index_q;
  command_t store_command;
  logic [47:0] store_since;
  assign push = state_q == Classify && |check_class;
  command_store #(
      .Entries(Entries)
  ) u_store (
      .clk_i,
      .rst_i,
      .full_o        (store_full),
      .push_i        (push),
      .push_command_i(command_q),
      .push_class_i  (check_class),
      .push_time_i   (now),
      .take_i        (take_q),
      .end_i         (end_q),
      .index_i       (index_q),
      .read_index_i  (scan_index),
      .read_command_o(store_command),
      .read_time_o   (store_since),
      .scan_i        (scan_q),
      .scan_classes_i(scan_classes_q),
      .scan_waiting_i(scan_waiting_q),
      .scan_any_i    (scan_any_q),
      .scan_owner_i  (scan_owner_q),
      .scan_done_o   (scan_done),
      .scan_count_o  (scan_count),
      .scan_index_o  (scan_index),
      .scan_poll_o   (scan_poll),
      .waiting_o     (waiting),
      .prefetches_o  (prefetches),
      .polls_o       (store_polls),
      .empty_o       (store_empty)
  );

  logic which_q;  // the lane that is resolved
  logic [31:0] timeout_us;
  assign timeout_us = command_q.timeout_us == '0 ? timeout_us_q : command_q.timeout_us;
  logic resolve_start_q, resolve_done;
  logic [15:0] resolve_status;
  logic [31:0] resolve_value;
  buffer_entry_t [4:0] resolved;
  buffer_resolver u_resolver (
      .clk_i,
      .rst_i,
      .table_base_i     (state_i.buffer_base),
      .table_slots_i    (state_i.buffer_slots),
      .start_i          (resolve_start_q),
      .command_i        (command_q),
      .done_o           (resolve_done),
      .status_o         (resolve_status),
      .value_o          (resolve_value),
      .buffers_o        (resolved),
      .request_address_o(resolve_request_address),
      .request_valid_o  (resolve_request_valid),
      .request_ready_i  (line_ready),
      .response_data_i  (line),
      .response_error_i (line_error),
      .response_valid_i (line_valid && state_q == Resolve)
  );

  // The completion that is being made.
  command_completion_t completion_q;
  logic held_q;  // its command is in the store, at index_q
  logic full, writer_ready, written, write_error, clear;
  logic [31:0] tail;
  completion_writer u_writer (
      .clk_i,
      .rst_i,
      .clear_i           (clear),
      .base_i            (state_i.completion_base),
      .slots_log2_i      (state_i.completion_slots_log2),
      .head_i            (state_i.completion_head),
      .tail_o            (tail),
      .full_o            (full),
      .completion_i      (completion_q),
      .completion_valid_i(state_q == End),
      .completion_ready_o(writer_ready),
      .done_o            (written),
      .error_o           (write_error),
      .m_axi_awaddr_o,
      .m_axi_awvalid_o,
      .m_axi_awready_i,
      .m_axi_wdata_o,
      .m_axi_wvalid_o,
      .m_axi_wready_i,
      .m_axi_bresp_i,
      .m_axi_bvalid_i,
      .m_axi_bready_o
  );

  // The DMA engine: what runs, and what still may write after its command has ended.
  logic busy_q, running_q, late_q;  // running_q: which lane's
  logic [31:0] late_target_q;
  assign dma_cancel_o = late_q;
  assign dma_done_ready_o = state_q == Rest && !poll_due_q && busy_q;

  logic [1:0] over;  // deadlines
  always_comb for (int i = 0; i < 2; ++i) over[i] = lane_q[i].valid && now >= lane_q[i].deadline;
  logic idle;
  assign idle  = state_q == Rest && store_empty && !busy_q && !poll_due_q && !cancel_due_q;
  assign clear = idle && !enable;

  // The next table of a lane. Results are whole lines, four to a line, so slices with results are fours.
  logic  next;
  lane_t lane;
  logic [31:0] left, slice, count;
  assign next  = ~lane_q[0].valid;
  assign lane  = lane_q[next];
  assign left  = lane.command.count - lane.ran;
  assign slice = lane.command.results == '0 ? 32'(slice_q) : (32'(slice_q) + 32'd3) & ~32'd3;
  assign count = next && left > slice ? slice : left;

  buffer_entry_t records, blocks;
  logic [63:0] descriptors, results;
  always_comb begin
    {blocks, records} = {lane.buffers[1], lane.buffers[0]};
    if (16'(lane.command.move) == MoveCompress) {blocks, records} = {lane.buffers[0], lane.buffers[1]};
    descriptors = lane.buffers[2].base + {26'd0, lane.command.descriptors_line, 6'd0} + {26'd0, lane.ran, 6'd0};
    results = '0;
    if (lane.command.results != '0) begin
      results = lane.buffers[3].base + {26'd0, lane.command.results_line, 6'd0} + {28'd0, lane.ran, 4'd0};
    end
  end

  function automatic command_completion_t ended(input command_t command, input logic [15:0] status,
                                                input logic [47:0] ns);
    ended = '0;
    ended.tag = command.tag;
    ended.owner = command.owner;
    ended.opcode = command.opcode;
    ended.status = status;
    ended.duration_ns = 64'(ns);
  endfunction

  function automatic command_completion_t lane_ended(input lane_t l, input logic [15:0] status,
                                                     input logic [47:0] time_ns);
    lane_ended = ended(l.command, status, time_ns - l.since);
    lane_ended.bytes = l.bytes;
    lane_ended.blocks = l.ran;
    lane_ended.failed = l.failed;
    lane_ended.first_failed = l.first_failed;
    lane_ended.value = l.value;
    lane_ended.limit = l.limit;
    lane_ended.block_status = l.block_status;
  endfunction

  // A lane with the result of a table added.
  function automatic lane_t added(input lane_t l, input dma_done_t done);
    added = l;
    added.bytes = l.bytes + done.bytes;
    added.ran = l.ran + done.blocks;
    added.failed = l.failed + done.failed;
    if (l.failed == '0 && done.failed != '0) begin
      added.first_failed = l.ran + done.first_failed;
      added.value = done.value;
      added.limit = done.limit;
      added.block_status = done.block_status;
    end
  endfunction

  function automatic logic names(input command_t command, input logic [31:0] buffer);
    names = command.source == buffer || command.target == buffer || command.descriptors == buffer ||
        command.results == buffer || command.codebooks == buffer;
  endfunction

  lane_t done_lane;
  assign done_lane = added(lane_q[running_q], dma_done_i);

  task automatic scan(input purpose_e purpose, input logic [2:0] classes, input logic waits, input logic any,
                      input logic [31:0] owner);
    state_q <= Scan;
    purpose_q <= purpose;
    scan_q <= 1'b1;
    scan_classes_q <= classes;
    scan_waiting_q <= waits;
    scan_any_q <= any;
    scan_owner_q <= owner;
  endtask

  // The command of a lane has ended; the lane is free.
  task automatic end_lane(input logic which, input lane_t l, input logic [15:0] status);
    lane_q[which].valid <= 1'b0;
    completion_q <= lane_ended(l, status, now);
    index_q <= l.index;
    held_q <= 1'b1;
    state_q <= End;
  endtask

  always_ff @(posedge clk_i) begin
    {scan_q, take_q, end_q, resolve_start_q} <= '0;
    event_o <= '0;
    if (dma_job_ready_i) dma_job_valid_o <= 1'b0;
    if (order_i.cancel_owner_valid) {cancel_due_q, cancel_owner_q} <= {1'b1, order_i.cancel_owner};
    if (!enable) lane_q[1].stop <= 1'b1;

    unique case (state_q)
      Rest: begin
        if (poll_due_q) scan(ForPoll, Any, 1'b0, 1'b0, poll_owner_q);
        else if (dma_done_valid_i && busy_q) begin
          busy_q <= 1'b0;
          late_q <= 1'b0;
          if (!late_q) begin
            lane_q[running_q] <= done_lane;
            if (dma_done_i.status == CommandStatusDeviceError) end_lane(running_q, done_lane, CommandStatusDeviceError);
            else if (done_lane.ran >= done_lane.command.count) begin
              end_lane(running_q, done_lane, done_lane.failed == '0 ? CommandStatusOk : CommandStatusFailedBlocks);
            end
          end
        end else if (|over) begin
          end_lane(~over[0], lane_q[~over[0]], CommandStatusDeviceTimeout);
          event_o.interrupt_status_timeout <= 1'b1;
          if (busy_q && !late_q && running_q == ~over[0]) begin
            late_q <= 1'b1;
            late_target_q <= lane_q[~over[0]].command.target;
          end
        end else if (cancel_due_q) begin
          scan(ForCancel, Any, 1'b1, 1'b0, cancel_owner_q);
          if (lane_q[1].command.owner == cancel_owner_q) lane_q[1].stop <= 1'b1;
        end else if (!enable && |waiting) scan(ForClose, Any, 1'b1, 1'b1, '0);
        else if (supersede_due_q) scan(ForSupersede, Prefetch, 1'b1, 1'b0, supersede_owner_q);
        else if (32'(prefetches) > Prefetches) scan(ForRoom, Prefetch, 1'b1, 1'b1, '0);
        else if (enable && waiting[0] && !lane_q[0].valid) scan(ForDemand, Demand, 1'b1, 1'b1, '0);
        else if (!busy_q && lane_q[0].valid) state_q <= Start;
        else if (enable && !halted_q && !ring_empty && !store_full) state_q <= Fetch;
        else if (!busy_q && lane_q[1].valid) begin
          if (lane_q[1].stop) end_lane(1'b1, lane_q[1], CommandStatusCancelled);
          else state_q <= Start;
        end else if (enable && waiting[1] && !lane_q[0].valid && !lane_q[1].valid) begin
          scan(ForPrefetch, Prefetch, 1'b1, 1'b1, '0);
        end
        if (clear) {head_q, halted_q} <= '0;
      end

      Fetch: if (line_ready) state_q <= Fetched;
      Fetched:
      if (line_valid) begin
        command_q <= line;
        state_q   <= Classify;
        if (line_error) begin
          halted_q <= 1'b1;
          event_o.interrupt_status_halted <= 1'b1;
          state_q <= Rest;
        end
      end
      Classify: begin
        head_q <= head_q + 32'd1;
        held_q <= 1'b0;
        completion_q <= ended(command_q, check_bad ? CommandStatusDeviceError : CommandStatusOk, '0);
        completion_q.value <= check_bad ? check_value : '0;
        completion_q.limit <= check_bad ? check_limit : '0;
        state_q <= |check_class ? Rest : End;
        if (check_class[1]) {supersede_due_q, supersede_owner_q} <= {1'b1, command_q.owner};
        if (check_class[2]) {poll_due_q, poll_owner_q} <= {1'b1, command_q.owner};
        if (check_set) begin
          unique case (command_q.param)
            32'(ParameterPrefetchDepth):     depth_q <= command_q.value[8:0];
            32'(ParameterCompressionScheme): scheme_q <= command_q.value[2:0];
            32'(ParameterRunsInFlight):      runs_q <= command_q.value[2:0];
            32'(ParameterPrefetchSlice):     slice_q <= command_q.value[16:0];
            default:                         timeout_us_q <= command_q.value[31:0];
          endcase
        end
      end

      Scan:
      if (scan_done) begin
        index_q <= scan_index;
        state_q <= Load;
        unique case (purpose_q)
          ForPoll: if (scan_count == '0 || !scan_poll) {poll_due_q, state_q} <= {1'b0, Rest};
          ForCancel: if (scan_count == '0) {cancel_due_q, state_q} <= {1'b0, Rest};
          ForRoom: if (32'(scan_count) <= Prefetches) state_q <= Rest;
          ForSupersede: if (32'(scan_count) <= 32'(depth_q)) {supersede_due_q, state_q} <= {1'b0, Rest};
          default: if (scan_count == '0) state_q <= Rest;
        endcase
      end
      Load: state_q <= Loaded;
      Loaded: begin
        command_q <= store_command;
        since_q   <= store_since;
        held_q    <= 1'b1;
        state_q   <= End;
        unique case (purpose_q)
          ForPoll:   completion_q <= ended(store_command, CommandStatusOk, now - store_since);
          ForCancel: completion_q <= ended(store_command, CommandStatusCancelled, now - store_since);
          ForClose:  completion_q <= ended(store_command, CommandStatusClosed, now - store_since);
          ForDemand, ForPrefetch: begin
            take_q <= 1'b1;
            which_q <= purpose_q == ForPrefetch;
            completion_q <= ended(store_command, CommandStatusFenced, now - store_since);
            if (!(late_q && names(store_command, late_target_q))) begin
              resolve_start_q <= 1'b1;
              state_q <= Resolve;
            end
          end
          default:   completion_q <= ended(store_command, CommandStatusSuperseded, now - store_since);
        endcase
      end
      Resolve:
      if (resolve_done) begin
        completion_q <= ended(command_q, resolve_status, now - since_q);
        completion_q.value <= resolve_value;
        lane_q[which_q] <= '0;
        lane_q[which_q].valid <= resolve_status == CommandStatusOk && command_q.count != '0;
        lane_q[which_q].index <= index_q;
        lane_q[which_q].since <= since_q;
        lane_q[which_q].deadline <= now + 48'(timeout_us) * 48'd1000;
        lane_q[which_q].command <= command_q;
        lane_q[which_q].buffers <= resolved;
        state_q <= resolve_status == CommandStatusOk && command_q.count != '0 ? Rest : End;
      end

      Start: begin
        dma_job_valid_o <= 1'b1;
        dma_job_o <= {
          lane.command.tag,
          8'd0,
          8'(scheme_q),
          lane.command.flags,
          lane.command.move,
          count,
          blocks.bytes,
          blocks.base,
          records.bytes,
          records.base,
          results,
          descriptors
        };
        busy_q <= 1'b1;
        running_q <= next;
        state_q <= Rest;
      end

      End: if (writer_ready) state_q <= Ending;
      Ending:
      if (written) begin
        end_q <= held_q;
        state_q <= Rest;
        event_o.interrupt_status_completion <= 1'b1;
        if (held_q && store_polls) {poll_due_q, poll_owner_q} <= {1'b1, completion_q.owner};
        if (write_error) begin
          halted_q <= 1'b1;
          event_o.interrupt_status_halted <= 1'b1;
        end
      end
      default: state_q <= Rest;
    endcase

    if (rst_i) begin
      state_q <= Rest;
      lane_q <= '0;
      {head_q, halted_q} <= '0;
      {busy_q, late_q, dma_job_valid_o} <= '0;
      {poll_due_q, cancel_due_q, supersede_due_q} <= '0;
      depth_q <= 9'd4;
      scheme_q <= SchemeInt4[2:0];
      runs_q <= 3'd2;
      slice_q <= 17'd32;
      timeout_us_q <= 32'd10_000_000;
      {scan_q, take_q, end_q, resolve_start_q} <= '0;
      event_o <= '0;
    end
  end

  // What the host sees.
  logic counted;
  csr_value_t counters;
  assign counted = dma_done_valid_i && dma_done_ready_o;
  command_counters u_counters (
      .clk_i,
      .rst_i,
      .completed_i(state_q == Ending && written),
      .status_i   (completion_q.status),
      .ran_i      (counted),
      .done_i     (dma_done_i),
      .busy_i     (busy_q),
      .full_i     (full),
      .value_o    (counters)
  );
  always_comb begin
    value_o = counters;
    value_o.status_idle = idle;
    value_o.status_late = late_q;
    value_o.status_completion_full = full;
    value_o.status_halted = halted_q;
    value_o.status_cancelling = cancel_due_q;
    value_o.command_head = head_q;
    value_o.completion_tail = tail;
    value_o.parameters_prefetch_depth = depth_q;
    value_o.parameters_compression_scheme = scheme_q;
    value_o.parameters_runs_in_flight = runs_q;
    value_o.prefetch_slice = slice_q;
    value_o.command_timeout_us = timeout_us_q;
  end
endmodule

`default_nettype wire
