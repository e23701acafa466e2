`default_nettype none

// Reads one 64-byte line over AXI4 for each request: one at a time. A response is there for one cycle.
module axi_line_reader #(
    parameter int unsigned AddressBits = 64
) (
    input  wire                    clk_i,
    input  wire                    rst_i,
    input  wire  [AddressBits-1:0] request_address_i,
    input  wire                    request_valid_i,
    output logic                   request_ready_o,
    output logic [          511:0] response_data_o,
    output logic                   response_error_o,
    output logic                   response_valid_o,
    output logic [AddressBits-1:0] m_axi_araddr_o,
    output logic                   m_axi_arvalid_o,
    input  wire                    m_axi_arready_i,
    input  wire  [          511:0] m_axi_rdata_i,
    input  wire  [            1:0] m_axi_rresp_i,
    input  wire                    m_axi_rvalid_i,
    output logic                   m_axi_rready_o
);
  logic waiting_q;  // for data

  assign request_ready_o = ~m_axi_arvalid_o & ~waiting_q;
  assign m_axi_rready_o  = waiting_q;

  always_ff @(posedge clk_i) begin
    response_valid_o <= 1'b0;
    if (request_valid_i && request_ready_o) begin
      m_axi_araddr_o  <= {request_address_i[AddressBits-1:6], 6'd0};
      m_axi_arvalid_o <= 1'b1;
      waiting_q       <= 1'b1;
    end else if (m_axi_arready_i) begin
      m_axi_arvalid_o <= 1'b0;
    end
    if (m_axi_rvalid_i && m_axi_rready_o) begin
      response_data_o  <= m_axi_rdata_i;
      response_error_o <= m_axi_rresp_i[1];
      response_valid_o <= 1'b1;
      waiting_q        <= 1'b0;
    end
    if (rst_i) begin
      m_axi_arvalid_o  <= 1'b0;
      waiting_q        <= 1'b0;
      response_valid_o <= 1'b0;
    end
  end

  logic unused;
  assign unused = ^{request_address_i[5:0], m_axi_rresp_i[0]};
endmodule

`default_nettype wire
