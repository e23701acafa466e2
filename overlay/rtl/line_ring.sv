`default_nettype none

// Lines of payload between receiver and decoders: a ring, so that the next record fills what this one has left. Jobs
// say how many lines they own and whether to hand them on or to drop them. room_o: Margin lines more may come.
module line_ring #(
    parameter int unsigned Lines = 4096,
    parameter int unsigned Margin = 4,
    parameter int unsigned TagBits = 2,
    localparam int unsigned IndexBits = $clog2(Lines)
) (
    input  wire                clk_i,
    input  wire                rst_i,
    input  wire                write_i,
    input  wire  [      511:0] line_i,
    output logic               room_o,
    input  wire                job_valid_i,
    output logic               job_ready_o,
    input  wire                job_drop_i,
    input  wire  [IndexBits:0] job_lines_i,
    input  wire  [TagBits-1:0] job_tag_i,    // goes with every line
    output logic [      511:0] line_o,
    output logic [TagBits-1:0] tag_o,
    output logic               valid_o,
    input  wire                ready_i
);
  localparam int unsigned QueueDepth = 8;

  logic [IndexBits:0] write_q, read_q, left_q, used;
  logic [TagBits-1:0] tag_q;
  logic busy_q, read, space_q;
  assign used = write_q - read_q;
  assign job_ready_o = !busy_q || (read && left_q == (IndexBits + 1)'(1));
  assign read = busy_q && space_q;

  always_ff @(posedge clk_i) begin
    room_o <= used <= (IndexBits + 1)'(Lines - Margin - 2);
    if (write_i) write_q <= write_q + 1'b1;
    if (read) begin
      read_q <= read_q + 1'b1;
      left_q <= left_q - 1'b1;
      if (left_q == (IndexBits + 1)'(1)) busy_q <= 1'b0;
    end
    if (job_valid_i && job_ready_o) begin
      left_q <= job_lines_i;
      tag_q  <= job_tag_i;
      busy_q <= !job_drop_i && job_lines_i != '0;
      // A dropped job's lines are behind those that are read in this cycle.
      if (job_drop_i) read_q <= read_q + (IndexBits + 1)'(read) + job_lines_i;
    end
    if (rst_i) begin
      write_q <= '0;
      read_q  <= '0;
      busy_q  <= 1'b0;
    end
  end

  // Memory, a register behind it, and a queue that takes what is on its way.
  logic [511:0] stored, stored_q;
  logic [1:0] valid_q;
  logic [1:0][TagBits-1:0] tags_q;
  logic [$clog2(QueueDepth):0] waiting;
  ram_1r1w #(
      .Width(512),
      .Depth(Lines),
      .Style("ultra")
  ) i_lines (
      .clk_i,
      .write_i,
      .write_index_i(write_q[IndexBits-1:0]),
      .data_i(line_i),
      .read_i(read),
      .read_index_i(read_q[IndexBits-1:0]),
      .data_o(stored)
  );
  always_ff @(posedge clk_i) begin
    valid_q  <= {valid_q[0], read} & {2{~rst_i}};
    tags_q   <= {tags_q[0], tag_q};
    stored_q <= stored;
    space_q  <= waiting <= ($clog2(QueueDepth) + 1)'(QueueDepth - 5);
  end
  // verilator lint_off PINCONNECTEMPTY
  fifo #(
      .Width(512 + TagBits),
      .Depth(QueueDepth)
  ) i_queue (
      .clk_i,
      .rst_i,
      .data_i ({tags_q[1], stored_q}),
      .valid_i(valid_q[1]),
      .ready_o(),
      .data_o ({tag_o, line_o}),
      .valid_o(valid_o),
      .ready_i,
      .count_o(waiting)
  );
endmodule

`default_nettype wire
