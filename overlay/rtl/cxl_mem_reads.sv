`default_nettype none

// The requests of CXL.mem's Req channel from acceptance to their answer: reads (answered on DRS), and requests that
// need no memory (answered on NDR). An entry is free, waiting (for older writes of its line, or for AXI), issued, or
// done (waiting for a credit of its answer). Entries do not wait for each other.
//
// At the deadline an entry is done whatever its state, poisoned. Its AXI id may still be in use then (`late_q`): the
// entry takes new requests, but issues none before the late answer has come and gone.
module cxl_mem_reads #(
    parameter int unsigned Entries = 16,
    parameter int unsigned Writes = 16,
    parameter int unsigned LineBits = 34,
    localparam int unsigned IndexBits = $clog2(Entries)
) (
    input wire clk_i,
    input wire rst_i,
    input wire tick_i, // a quarter of the deadline has passed

    input wire                accept_i,
    input wire [        15:0] tag_i,
    input wire [LineBits-1:0] line_i,
    input wire                access_i,        // reads memory
    input wire                completion_i,    // without memory: answered on NDR instead of DRS
    input wire                decode_error_i,  // without memory, on DRS: poisoned?
    input wire [  Writes-1:0] older_i,         // writes of this line that come before it

    // Entries, for writes that come later: those that may still read, and their lines.
    output logic [Entries-1:0]               pending_o,
    output logic [Entries-1:0][LineBits-1:0] lines_o,
    output logic [Entries-1:0]               accepting_o,      // the entry that takes this cycle's request
    input  wire  [ Writes-1:0]               writes_pending_i,

    output logic                 issue_valid_o,
    output logic [IndexBits-1:0] issue_id_o,
    output logic [ LineBits-1:0] issue_line_o,
    input  wire                  issue_ready_i,

    input wire                 r_valid_i,
    input wire [IndexBits-1:0] r_id_i,
    input wire [        511:0] r_data_i,
    input wire                 r_bad_i,

    output logic         drs_valid_o,
    output logic [ 15:0] drs_tag_o,
    output logic         drs_poison_o,
    output logic [511:0] drs_data_o,
    input  wire          drs_taken_i,

    output logic        ndr_valid_o,
    output logic [15:0] ndr_tag_o,
    input  wire         ndr_taken_i,

    output logic [IndexBits:0] timed_out_o  // how many this cycle
);
  typedef enum logic [1:0] {
    Free,
    Waiting,
    Issued,
    Done
  } state_e;

  state_e [Entries-1:0] state_q;
  logic [Entries-1:0] late_q;  // AXI owes an answer that nobody waits for
  logic [Entries-1:0] poison_q;
  logic [Entries-1:0] no_data_q;
  logic [Entries-1:0] completion_q;
  logic [Entries-1:0][15:0] tag_q;
  logic [Entries-1:0][LineBits-1:0] line_q;
  logic [Entries-1:0][Writes-1:0] older_q;
  logic [Entries-1:0][2:0] age_q;
  (* ram_style = "distributed" *) logic [511:0] data_q[Entries];

  logic [Entries-1:0] free, can_issue, wants_drs, wants_ndr, expires;
  logic [IndexBits-1:0] slot, drs_index, ndr_index;

  always_comb begin
    for (int unsigned i = 0; i < Entries; i++) begin
      free[i] = state_q[i] == Free;
      pending_o[i] = (state_q[i] == Waiting) || (state_q[i] == Issued);
      can_issue[i] = (state_q[i] == Waiting) && older_q[i] == '0 && !late_q[i];
      wants_drs[i] = (state_q[i] == Done) && !completion_q[i];
      wants_ndr[i] = (state_q[i] == Done) && completion_q[i];
      expires[i] = tick_i && pending_o[i] && age_q[i] == 3'd4 && !(r_valid_i && r_id_i == IndexBits'(i) && !late_q[i]);
    end
    // An entry that AXI still owes an answer comes last.
    slot = '0;
    for (int unsigned i = Entries; i > 0; i--) if (free[i-1]) slot = IndexBits'(i - 1);
    for (int unsigned i = Entries; i > 0; i--) if (free[i-1] && !late_q[i-1]) slot = IndexBits'(i - 1);
  end
  assign lines_o = line_q;
  assign accepting_o = accept_i && access_i ? Entries'(1) << slot : '0;
  assign timed_out_o = (IndexBits + 1)'($countones(expires));

  logic issue;
  assign issue = issue_valid_o && issue_ready_i;
  round_robin #(
      .Requests(Entries)
  ) pick_issue (
      .clk_i,
      .rst_i,
      .request_i(can_issue & ~expires),
      .taken_i  (issue),
      .valid_o  (issue_valid_o),
      .index_o  (issue_id_o)
  );
  assign issue_line_o = line_q[issue_id_o];

  round_robin #(
      .Requests(Entries)
  ) pick_drs (
      .clk_i,
      .rst_i,
      .request_i(wants_drs),
      .taken_i  (drs_taken_i),
      .valid_o  (drs_valid_o),
      .index_o  (drs_index)
  );
  assign drs_tag_o = tag_q[drs_index];
  assign drs_poison_o = poison_q[drs_index];
  assign drs_data_o = no_data_q[drs_index] ? '1 : data_q[drs_index];

  round_robin #(
      .Requests(Entries)
  ) pick_ndr (
      .clk_i,
      .rst_i,
      .request_i(wants_ndr),
      .taken_i  (ndr_taken_i),
      .valid_o  (ndr_valid_o),
      .index_o  (ndr_index)
  );
  assign ndr_tag_o = tag_q[ndr_index];

  always_ff @(posedge clk_i) begin
    for (int unsigned i = 0; i < Entries; i++) begin
      older_q[i] <= older_q[i] & writes_pending_i;
      if (tick_i && age_q[i] != 3'd4) age_q[i] <= age_q[i] + 1'b1;
      if (expires[i]) begin
        state_q[i]   <= Done;
        poison_q[i]  <= 1'b1;
        no_data_q[i] <= 1'b1;
        if (state_q[i] == Issued) late_q[i] <= 1'b1;
      end
    end
    if (issue) state_q[issue_id_o] <= Issued;
    if (r_valid_i) begin
      if (late_q[r_id_i]) begin
        late_q[r_id_i] <= 1'b0;
      end else begin
        state_q[r_id_i]  <= Done;
        poison_q[r_id_i] <= r_bad_i;
        data_q[r_id_i]   <= r_data_i;
      end
    end
    if (drs_taken_i) state_q[drs_index] <= Free;
    if (ndr_taken_i) state_q[ndr_index] <= Free;
    if (accept_i) begin
      state_q[slot] <= access_i ? Waiting : Done;
      poison_q[slot] <= decode_error_i;
      no_data_q[slot] <= !access_i;
      completion_q[slot] <= completion_i;
      tag_q[slot] <= tag_i;
      line_q[slot] <= line_i;
      older_q[slot] <= older_i;
      age_q[slot] <= '0;
    end
    if (rst_i) begin
      state_q <= '0;
      late_q  <= '0;
    end
  end

`ifndef SYNTHESIS
  assert property (@(posedge clk_i) disable iff (rst_i) accept_i |-> |free)
  else $error("a request without a free entry");
  assert property (@(posedge clk_i) disable iff (rst_i) r_valid_i |-> late_q[r_id_i] || state_q[r_id_i] == Issued)
  else $error("AXI answered a read that was not asked");
`endif
endmodule

`default_nettype wire
