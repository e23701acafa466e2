`default_nettype none

// What is wrong with a payload of runs, K before V, in the order of hls/include/speckv/int8_delta_rle.hpp.
module int8_verdict
  import speckv_pkg::*;
(
    input  wire                              clk_i,
    input  wire                              rst_i,
    input  wire                              ended_i,
    // verilator lint_off UNUSEDSIGNAL
    input  wire record_header_t              header_i,
    // verilator lint_on UNUSEDSIGNAL
    input  wire                 [19:0]       key_beats_i,
    input  wire                 [19:0]       value_beats_i,
    input  wire                 [ 1:0][31:0] total_i,
    input  wire                 [ 1:0]       below_i,
    output logic                             ended_o,
    output logic                             bad_o,
    output logic                [31:0]       value_o,
    output logic                [31:0]       limit_o
);
  typedef struct packed {
    logic bad;
    logic [31:0] value;
    logic [31:0] limit;
  } fault_t;

  logic [31:0] key_bytes;
  logic [14:0] largest;
  assign key_bytes = header_i.scheme_params[63:32];
  assign largest   = header_i.dtype[0] ? 15'h7F7F : 15'h7BFF;

  function automatic fault_t of_kind(input logic present, input logic [31:0] size, input logic [15:0] absmax,
                                     input logic [14:0] most, input logic [31:0] total, input logic [31:0] values,
                                     input logic below);
    if (!present) return '{size != '0 || absmax != '0, size, 32'd0};
    if (absmax > 16'(most)) return '{1'b1, 32'(absmax), 32'(most)};
    if (size[0]) return '{1'b1, size, size - 32'd1};
    if (total != values) return '{1'b1, total, values};
    return '{below, -32'd128, -32'd127};
  endfunction

  fault_t key_q, value_q;
  logic [1:0] ended_q;
  logic [31:0] value_bytes_q;
  logic too_many_q;
  always_ff @(posedge clk_i) begin
    ended_q <= {ended_q[0], ended_i} & {2{~rst_i}};
    ended_o <= ended_q[1] && !rst_i;
    value_bytes_q <= header_i.payload_bytes - key_bytes;
    too_many_q <= key_bytes > header_i.payload_bytes;
    key_q <= of_kind(
        header_i.kinds[0],
        key_bytes,
        header_i.scheme_params[15:0],
        largest,
        total_i[0],
        {
          7'd0, key_beats_i, 5'd0
        },
        below_i[0]
    );
    value_q <= of_kind(
        header_i.kinds[1],
        value_bytes_q,
        header_i.scheme_params[31:16],
        largest,
        total_i[1],
        {
          7'd0, value_beats_i, 5'd0
        },
        below_i[1]
    );
    {bad_o, value_o, limit_o} <= too_many_q ? {1'b1, key_bytes, header_i.payload_bytes} : key_q.bad ? key_q : value_q;
  end
endmodule

`default_nettype wire
