`default_nettype none

// Lines of InWords words in, any 1 to OutWords words from the front out: `take_i` says how many, `skip_i` that the rest
// of their line is dropped. valid_o: the words asked for are there. Full rate where OutWords is at most half a line.
module word_gearbox #(
    parameter  int unsigned WordBits  = 64,
    parameter  int unsigned InWords   = 8,
    parameter  int unsigned OutWords  = 4,
    localparam int unsigned TakeBits  = $clog2(OutWords + 1),
    localparam int unsigned PlaceBits = $clog2(InWords + 1)
) (
    input  wire                          clk_i,
    input  wire                          rst_i,
    input  wire  [ InWords*WordBits-1:0] data_i,
    input  wire                          valid_i,
    output logic                         ready_o,
    output logic [OutWords*WordBits-1:0] data_o,
    output logic                         valid_o,
    input  wire  [         TakeBits-1:0] take_i,
    input  wire                          skip_i,
    input  wire                          ready_i
);
  localparam int unsigned Line = InWords * WordBits;

  logic [Line-1:0] front_q, back_q;
  logic front_valid_q, back_valid_q;
  logic [PlaceBits-1:0] place_q;  // of the first word; InWords: the front line is used up

  logic [  PlaceBits:0] after;
  assign after = (PlaceBits + 1)'(place_q) + (PlaceBits + 1)'(take_i);

  logic fits, fire, used_up, shift;
  assign fits = after <= (PlaceBits + 1)'(InWords);
  assign used_up = place_q == PlaceBits'(InWords);
  assign valid_o = front_valid_q && !used_up && (fits || back_valid_q);
  assign fire = valid_o && ready_i;
  assign shift = !front_valid_q || used_up || (fire && (skip_i || after >= (PlaceBits + 1)'(InWords)));
  assign ready_o = !back_valid_q;

  logic [(InWords+OutWords)*WordBits-1:0] window;
  assign window = {back_q[OutWords*WordBits-1:0], front_q};
  always_comb begin
    data_o = '0;
    for (int p = 0; p < InWords; ++p) if (place_q == PlaceBits'(p)) data_o |= window[p*WordBits+:OutWords*WordBits];
  end

  always_ff @(posedge clk_i) begin
    if (fire) place_q <= after[PlaceBits-1:0];
    if (shift) begin
      front_q <= back_q;
      front_valid_q <= back_valid_q;
      back_valid_q <= 1'b0;
      place_q <= '0;
      if (fire && !fits) place_q <= skip_i ? PlaceBits'(InWords) : PlaceBits'(after - (PlaceBits + 1)'(InWords));
    end
    if (valid_i && ready_o) begin
      back_q <= data_i;
      back_valid_q <= 1'b1;
    end
    if (rst_i) begin
      front_valid_q <= 1'b0;
      back_valid_q <= 1'b0;
      place_q <= '0;
    end
  end
endmodule

`default_nettype wire
