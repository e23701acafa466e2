`default_nettype none

// What a round needs of the codebook: the entropy tables of its two half rounds, 16 lanes each. The class of a
// component comes from a map, the class's 32 symbols from a table of their last slots, from which a lane finds
// symbol, frequency and start. Both are written as they lie in a codebook's image (docs/codebook_format.md): beats
// of 64 classes, a byte each, and beats of 16 symbols, frequency and start, 16 bits each.
module entropy_tables
  import speckv_pkg::*;
#(
    parameter int unsigned ClassMapBeats = 256,
    localparam int unsigned MapBits = $clog2(ClassMapBeats),
    localparam int unsigned ClassBits = $clog2(CodebookClasses),
    localparam int unsigned RowBits = EntropySymbols * EntropyBits
) (
    input  wire                clk_i,
    input  wire                write_i,
    input  wire                write_map_i,        // else a half of an entropy table: 2 * class + half
    input  wire  [MapBits-1:0] write_address_i,
    input  wire  [AxiBits-1:0] write_data_i,
    // The even component of a pair, and which of the two each half round takes; three cycles later the rows.
    input  wire  [MapBits+4:0] pair_i,
    input  wire  [        1:0] odd_i,
    output logic [RowBits-1:0] row_o          [2]
);
  localparam int unsigned HalfSymbols = EntropySymbols / 2;
  localparam int unsigned HalfBits = RowBits / 2;
  localparam int unsigned MapWidth = 64 * ClassBits;

  // ---- written

  logic [MapWidth-1:0] map_data;
  logic [HalfBits-1:0] table_data;

  for (genvar i = 0; i < 64; ++i) begin : g_map
    assign map_data[i*ClassBits+:ClassBits] = write_data_i[i*8+:ClassBits];
  end
  for (genvar i = 0; i < HalfSymbols; ++i) begin : g_last
    logic [EntropyBits-1:0] frequency, start;
    assign frequency = write_data_i[i*32+:EntropyBits];
    assign start = write_data_i[i*32+16+:EntropyBits];
    // A symbol that does not occur ends where all slots do.
    assign table_data[i*EntropyBits+:EntropyBits] = (frequency == '0) ? '1 : start + frequency - 1'b1;
  end

  (* ram_style = "block" *) logic [MapWidth-1:0] map_q[ClassMapBeats];

  // ---- read

  logic [MapWidth-1:0] beat_q;
  logic [4:0] beat_pair_q;
  logic [1:0] beat_odd_q;
  logic [1:0][ClassBits-1:0] pair;
  logic [ClassBits-1:0] class_q[2];

  assign pair = beat_q[beat_pair_q*2*ClassBits+:2*ClassBits];

  always_ff @(posedge clk_i) begin
    if (write_i && write_map_i) map_q[write_address_i] <= map_data;
    beat_q <= map_q[pair_i[MapBits+4:5]];
    beat_pair_q <= pair_i[4:0];
    beat_odd_q <= odd_i;
    for (int h = 0; h < 2; ++h) class_q[h] <= pair[beat_odd_q[h]];
  end

  // A copy for each half round, each in two halves that are written apart.
  for (genvar h = 0; h < 2; ++h) begin : g_half_round
    (* ram_style = "distributed" *)logic [HalfBits-1:0] low_q [CodebookClasses];
    (* ram_style = "distributed" *)logic [HalfBits-1:0] high_q[CodebookClasses];

    always_ff @(posedge clk_i) begin
      if (write_i && !write_map_i && !write_address_i[0]) low_q[write_address_i[ClassBits:1]] <= table_data;
      if (write_i && !write_map_i && write_address_i[0]) high_q[write_address_i[ClassBits:1]] <= table_data;
      row_o[h] <= {high_q[class_q[h]], low_q[class_q[h]]};
    end
  end
endmodule

`default_nettype wire
