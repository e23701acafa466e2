`default_nettype none

// Looks the buffers of a dma_batch or prefetch up in the table that the host keeps in memory, and checks that the
// slices of the descriptors and of the results lie inside theirs. One table entry after the other; the first fault
// ends it. A number that is 0 where none is needed is no buffer; elsewhere it is no good one.
module buffer_resolver
  import speckv_pkg::*;
(
    input  wire                   clk_i,
    input  wire                   rst_i,
    input  wire           [ 63:0] table_base_i,
    input  wire           [ 31:0] table_slots_i,
    input  wire                   start_i,
    input  command_t              command_i,          // stands until done_o
    output logic                  done_o,             // a pulse
    output logic          [ 15:0] status_o,           // command_status: ok, bad_buffer, device_error
    output logic          [ 31:0] value_o,            // the number that is no good, or bytes past the end
    output buffer_entry_t [  4:0] buffers_o,          // source, target, descriptors, results, codebooks from 0 up
    output logic          [ 63:0] request_address_o,
    output logic                  request_valid_o,
    input  wire                   request_ready_i,
    input  wire           [511:0] response_data_i,
    input  wire                   response_error_i,
    input  wire                   response_valid_i
);
  localparam int unsigned Descriptors = 2;
  localparam int unsigned Results = 3;
  localparam int unsigned Count = 5;

  typedef enum logic [2:0] {
    Rest,
    Look,
    Wait,
    Keep,
    Judge,
    Done
  } state_e;
  state_e state_q;
  logic [2:0] which_q;
  buffer_entry_t entry_q;

  logic [31:0] number;
  always_comb begin
    unique case (which_q)
      3'd0: number = command_i.source;
      3'd1: number = command_i.target;
      3'd2: number = command_i.descriptors;
      3'd3: number = command_i.results;
      default: number = command_i.codebooks;
    endcase
  end

  // Where the command's slices end; a register each, the sums are wide.
  logic [38:0] descriptors_end_q;
  logic [38:0] results_end_q;
  logic short_q;

  assign request_address_o = table_base_i + {28'd0, number, 4'd0};
  assign request_valid_o = state_q == Look && number != '0 && number < table_slots_i;
  assign done_o = state_q == Done;

  always_ff @(posedge clk_i) begin
    descriptors_end_q <= {1'b0, command_i.descriptors_line, 6'd0} + {1'b0, command_i.count, 6'd0};
    results_end_q <= {1'b0, command_i.results_line, 6'd0} + {3'd0, command_i.count, 4'd0};
    unique case (state_q)
      Rest:
      if (start_i) begin
        state_q   <= Look;
        which_q   <= '0;
        status_o  <= CommandStatusOk;
        value_o   <= '0;
        buffers_o <= '0;
      end
      Look:
      if (number == '0 && which_q >= 3'(Results)) state_q <= which_q == 3'(Count - 1) ? Done : Look;
      else if (number == '0 || number >= table_slots_i) begin
        status_o <= CommandStatusBadBuffer;
        value_o  <= number;
        state_q  <= Done;
      end else if (request_ready_i) state_q <= Wait;
      Wait:
      if (response_valid_i) begin
        entry_q <= response_data_i[number[1:0]*128+:128];
        state_q <= Keep;
        if (response_error_i) begin
          status_o <= CommandStatusDeviceError;
          value_o  <= number;
          state_q  <= Done;
        end
      end
      Keep: begin
        buffers_o[which_q] <= entry_q;
        short_q <= (which_q == 3'(Descriptors) && entry_q.bytes < 64'(descriptors_end_q)) ||
            (which_q == 3'(Results) && entry_q.bytes < 64'(results_end_q));
        state_q <= Judge;
      end
      Judge: begin
        which_q <= which_q + 1'b1;
        state_q <= which_q == 3'(Count - 1) ? Done : Look;
        if (entry_q.bytes == '0 || entry_q.base[5:0] != '0 || short_q) begin
          status_o <= CommandStatusBadBuffer;
          value_o  <= number;
          state_q  <= Done;
        end
      end
      default: state_q <= Rest;
    endcase
    if (state_q == Look && number == '0 && which_q >= 3'(Results)) which_q <= which_q + 1'b1;
    if (rst_i) state_q <= Rest;
  end
endmodule

`default_nettype wire
