`default_nettype none

// Writes command completions into their ring in memory, one at a time. Number i (from 1) goes to slot (i - 1) modulo
// the slots and carries its number, so that a host finds new ones without a register. Waits while the ring holds
// as many as it has slots; never overwrites one that the host has not read.
module completion_writer
  import speckv_pkg::*;
(
    input  wire                         clk_i,
    input  wire                         rst_i,
    input  wire                         clear_i,             // back to an empty ring
    input  wire                 [ 63:0] base_i,
    input  wire                 [  4:0] slots_log2_i,
    input  wire                 [ 31:0] head_i,              // what the host has read
    output logic                [ 31:0] tail_o,              // what has been written
    output logic                        full_o,              // a completion waits for room
    input  command_completion_t         completion_i,        // its number apart
    input  wire                         completion_valid_i,
    output logic                        completion_ready_o,
    output logic                        done_o,              // a pulse: it is in memory
    output logic                        error_o,             // with done_o: or rather is not
    output logic                [ 63:0] m_axi_awaddr_o,
    output logic                        m_axi_awvalid_o,
    input  wire                         m_axi_awready_i,
    output logic                [511:0] m_axi_wdata_o,
    output logic                        m_axi_wvalid_o,
    input  wire                         m_axi_wready_i,
    input  wire                 [  1:0] m_axi_bresp_i,
    input  wire                         m_axi_bvalid_i,
    output logic                        m_axi_bready_o
);
  logic [31:0] mask;
  logic room_q;
  command_completion_t numbered;

  assign mask = (32'd1 << slots_log2_i) - 32'd1;
  assign full_o = completion_valid_i & ~room_q & ~m_axi_bready_o;
  assign completion_ready_o = room_q & ~m_axi_bready_o;

  always_comb begin
    numbered = completion_i;
    numbered.number = 64'(tail_o + 32'd1);
  end

  always_ff @(posedge clk_i) begin
    done_o <= 1'b0;
    // Not in the cycle in which one is taken: it may be the last that fits.
    room_q <= (tail_o - head_i) <= mask && !(completion_valid_i && completion_ready_o);
    if (m_axi_awready_i) m_axi_awvalid_o <= 1'b0;
    if (m_axi_wready_i) m_axi_wvalid_o <= 1'b0;
    if (completion_valid_i && completion_ready_o) begin
      m_axi_awaddr_o  <= base_i + {26'd0, tail_o & mask, 6'd0};
      m_axi_awvalid_o <= 1'b1;
      m_axi_wdata_o   <= numbered;
      m_axi_wvalid_o  <= 1'b1;
      m_axi_bready_o  <= 1'b1;
    end else if (m_axi_bvalid_i && m_axi_bready_o) begin
      m_axi_bready_o <= 1'b0;
      done_o         <= 1'b1;
      error_o        <= m_axi_bresp_i[1];
      tail_o         <= tail_o + 32'd1;
      room_q         <= 1'b0;
    end
    if (rst_i || clear_i) tail_o <= '0;
    if (rst_i) begin
      room_q          <= 1'b0;
      done_o          <= 1'b0;
      m_axi_awvalid_o <= 1'b0;
      m_axi_wvalid_o  <= 1'b0;
      m_axi_bready_o  <= 1'b0;
    end
  end

  logic unused;
  assign unused = ^{m_axi_bresp_i[0], completion_i.number};
endmodule

`default_nettype wire
