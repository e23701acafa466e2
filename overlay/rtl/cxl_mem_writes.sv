`default_nettype none

// The requests of CXL.mem's RwD channel from acceptance to their completion: as cxl_mem_reads, and a write waits for
// older reads and writes of its line. A write is lost, as far as anybody can tell, when AXI answers it with an error,
// when its deadline passes before it could be issued (it is never issued then) or before AXI answered.
module cxl_mem_writes #(
    parameter int unsigned Entries = 16,
    parameter int unsigned Reads = 16,
    parameter int unsigned LineBits = 34,
    localparam int unsigned IndexBits = $clog2(Entries)
) (
    input wire clk_i,
    input wire rst_i,
    input wire tick_i,

    input wire                accept_i,
    input wire [        15:0] tag_i,
    input wire [LineBits-1:0] line_i,
    input wire                access_i,      // writes memory; otherwise it is completed without
    input wire                poison_i,
    input wire [        63:0] strobe_i,
    input wire [       511:0] data_i,
    input wire [   Reads-1:0] older_reads_i,

    output logic [Entries-1:0]               pending_o,
    output logic [Entries-1:0][LineBits-1:0] lines_o,
    input  wire  [  Reads-1:0]               reads_pending_i,

    output logic                 issue_valid_o,
    output logic [IndexBits-1:0] issue_id_o,
    output logic [ LineBits-1:0] issue_line_o,
    output logic                 issue_poison_o,
    output logic [         63:0] issue_strobe_o,
    output logic [        511:0] issue_data_o,
    input  wire                  issue_ready_i,

    input wire                 b_valid_i,
    input wire [IndexBits-1:0] b_id_i,
    input wire                 b_bad_i,

    output logic        ndr_valid_o,
    output logic [15:0] ndr_tag_o,
    input  wire         ndr_taken_i,

    output logic               lost_o,      // a write may be lost: this cycle
    output logic               late_o,      // AXI owes an answer to a write that is completed
    output logic [IndexBits:0] timed_out_o
);
  typedef enum logic [1:0] {
    Free,
    Waiting,
    Issued,
    Done
  } state_e;

  state_e [Entries-1:0] state_q;
  logic [Entries-1:0] late_q;
  logic [Entries-1:0][15:0] tag_q;
  logic [Entries-1:0][LineBits-1:0] line_q;
  logic [Entries-1:0][Reads-1:0] older_reads_q;
  logic [Entries-1:0][Entries-1:0] older_writes_q;
  logic [Entries-1:0][2:0] age_q;
  (* ram_style = "distributed" *) logic [576:0] data_q[Entries];

  logic [Entries-1:0] free, can_issue, wants_ndr, expires, older_writes;
  logic [IndexBits-1:0] slot, ndr_index;

  always_comb begin
    for (int unsigned i = 0; i < Entries; i++) begin
      free[i] = state_q[i] == Free;
      pending_o[i] = (state_q[i] == Waiting) || (state_q[i] == Issued);
      can_issue[i] = (state_q[i] == Waiting) && older_reads_q[i] == '0 && older_writes_q[i] == '0 && !late_q[i];
      wants_ndr[i] = state_q[i] == Done;
      expires[i] = tick_i && pending_o[i] && age_q[i] == 3'd4 && !(b_valid_i && b_id_i == IndexBits'(i) && !late_q[i]);
      older_writes[i] = access_i && pending_o[i] && line_q[i] == line_i;
    end
    slot = '0;
    for (int unsigned i = Entries; i > 0; i--) if (free[i-1]) slot = IndexBits'(i - 1);
    for (int unsigned i = Entries; i > 0; i--) if (free[i-1] && !late_q[i-1]) slot = IndexBits'(i - 1);
  end
  assign lines_o = line_q;
  assign lost_o = |expires || (b_valid_i && b_bad_i);
  assign late_o = |late_q;
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
  assign {issue_poison_o, issue_strobe_o, issue_data_o} = data_q[issue_id_o];

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
      older_reads_q[i]  <= older_reads_q[i] & reads_pending_i;
      older_writes_q[i] <= older_writes_q[i] & pending_o;
      if (tick_i && age_q[i] != 3'd4) age_q[i] <= age_q[i] + 1'b1;
      if (expires[i]) begin
        state_q[i] <= Done;
        if (state_q[i] == Issued) late_q[i] <= 1'b1;
      end
    end
    if (issue) state_q[issue_id_o] <= Issued;
    if (b_valid_i) begin
      if (late_q[b_id_i]) late_q[b_id_i] <= 1'b0;
      else state_q[b_id_i] <= Done;
    end
    if (ndr_taken_i) state_q[ndr_index] <= Free;
    if (accept_i) begin
      state_q[slot] <= access_i ? Waiting : Done;
      tag_q[slot] <= tag_i;
      line_q[slot] <= line_i;
      older_reads_q[slot] <= older_reads_i;
      older_writes_q[slot] <= older_writes;
      age_q[slot] <= '0;
      data_q[slot] <= {poison_i, strobe_i, data_i};
    end
    if (rst_i) begin
      state_q <= '0;
      late_q  <= '0;
    end
  end

`ifndef SYNTHESIS
  assert property (@(posedge clk_i) disable iff (rst_i) accept_i |-> |free)
  else $error("a request without a free entry");
  assert property (@(posedge clk_i) disable iff (rst_i) b_valid_i |-> late_q[b_id_i] || state_q[b_id_i] == Issued)
  else $error("AXI answered a write that was not asked");
`endif
endmodule

`default_nettype wire
