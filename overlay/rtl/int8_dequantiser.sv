`default_nettype none

// Scheme int8_delta_rle, second half: 32 values of 8 bits in, 32 floats out, a beat a cycle, by a table of 128 magnitudes
// a kind. Tables are built from what a header says while its record still comes in; `tell_*` for every record of this
// scheme, then, in the same order, a job for each: to decode, or to drop. Tables of four records fit.
module int8_dequantiser (
    input  wire          clk_i,
    input  wire          rst_i,
    input  wire          tell_valid_i,
    input  wire          tell_bf16_i,
    input  wire  [ 31:0] tell_largest_i,
    output logic         tell_room_o,      // for one more
    input  wire          job_valid_i,
    output logic         job_ready_o,
    input  wire          job_drop_i,
    input  wire  [ 19:0] job_key_beats_i,
    input  wire  [ 19:0] job_beats_i,
    input  wire  [255:0] values_tdata_i,
    input  wire          values_tvalid_i,
    output logic         values_tready_o,
    output logic [511:0] block_tdata_o,
    output logic         block_tvalid_o,
    input  wire          block_tready_i
);
  localparam int unsigned OutDepth = 16;
  localparam int unsigned InFlight = 8;

  logic write, built;
  logic [ 7:0] write_index;
  logic [14:0] entry;
  int8_table i_table (
      .clk_i,
      .rst_i,
      .valid_i(tell_valid_i),
      .bf16_i(tell_bf16_i),
      .largest_i(tell_largest_i),
      .write_o(write),
      .index_o(write_index),
      .entry_o(entry),
      .built_o(built)
  );

  // Records told, built, and done with.
  logic [2:0] told_q, built_q, done_q;
  logic busy_q, drop_q, fire, room_q, second_q, finish;
  logic [19:0] key_left_q, left_q;
  logic done;
  assign tell_room_o = told_q - done_q < 3'd3;
  assign job_ready_o = !busy_q;
  assign values_tready_o = busy_q && !drop_q && built_q != done_q && room_q;
  assign fire = values_tvalid_i && values_tready_o;
  assign finish = fire && left_q == 20'd1;
  assign done = finish || (busy_q && drop_q && built_q != done_q);

  always_ff @(posedge clk_i) begin
    told_q  <= told_q + 3'(tell_valid_i);
    built_q <= built_q + 3'(built);
    done_q  <= done_q + 3'(done);
    if (job_valid_i && job_ready_o) begin
      busy_q <= 1'b1;
      drop_q <= job_drop_i;
      key_left_q <= job_key_beats_i;
      left_q <= job_beats_i;
      second_q <= job_key_beats_i == '0;
    end
    if (fire) begin
      left_q <= left_q - 20'd1;
      key_left_q <= key_left_q - 20'd1;
      if (key_left_q == 20'd1) second_q <= 1'b1;
    end
    if (done) busy_q <= 1'b0;
    if (rst_i) begin
      {told_q, built_q, done_q} <= '0;
      busy_q <= 1'b0;
    end
  end

  logic [3:0] valid_q;
  logic [3:0][31:0] negative_q;
  logic [1:0] bank_q;
  logic kind_q;
  logic [31:0][6:0] magnitude_q;
  logic [31:0][15:0] values;
  always_ff @(posedge clk_i) begin
    valid_q <= {valid_q[2:0], fire} & {4{~rst_i}};
    {bank_q, kind_q} <= {done_q[1:0], second_q};
    for (int l = 0; l < 32; ++l) begin
      negative_q[0][l] <= values_tdata_i[8*l+7];
      magnitude_q[l]   <= (values_tdata_i[8*l+:7] ^ {7{values_tdata_i[8*l+7]}}) + 7'(values_tdata_i[8*l+7]);
    end
    negative_q[3:1] <= negative_q[2:0];
  end
  for (genvar l = 0; l < 32; ++l) begin : g_lane
    logic [14:0] read;
    ram_1r1w #(
        .Width(15),
        .Depth(1024)
    ) i_magnitudes (
        .clk_i,
        .write_i(write),
        .write_index_i({built_q[1:0], write_index}),
        .data_i(entry),
        .read_i(1'b1),
        .read_index_i({bank_q, kind_q, magnitude_q[l]}),
        .data_o(read)
    );
    always_ff @(posedge clk_i) values[l] <= {negative_q[1][l], read};
  end

  logic [$clog2(OutDepth):0] waiting;
  // verilator lint_off PINCONNECTEMPTY
  fifo #(
      .Width(512),
      .Depth(OutDepth)
  ) i_out (
      .clk_i,
      .rst_i,
      .data_i (values),
      .valid_i(valid_q[2]),
      .ready_o(),
      .data_o (block_tdata_o),
      .valid_o(block_tvalid_o),
      .ready_i(block_tready_i),
      .count_o(waiting)
  );
  always_ff @(posedge clk_i) room_q <= waiting <= ($clog2(OutDepth) + 1)'(OutDepth - InFlight);
  logic unused;
  assign unused = &{1'b0, valid_q[3], negative_q[3:2]};
endmodule

`default_nettype wire
