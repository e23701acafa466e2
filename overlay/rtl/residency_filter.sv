`default_nettype none

// Which keys are in L2 or on their way: an exact set-associative table, one operation in three cycles.
//
// The key of an operation: `insert` answers whether it was there already (`found_o`), and it is there from then on;
// `remove` takes it out. A set that is full forgets its keys in turn. So a key that is found has been inserted and not
// removed since: what is skipped because it was found is there as long as every copy that ends is removed. A key that
// was forgotten is not found, and is fetched once too often.
module residency_filter #(
    parameter int unsigned KeyBits = 89,
    parameter int unsigned Sets = 256,
    parameter int unsigned Ways = 4,
    localparam int unsigned SetBits = $clog2(Sets),
    localparam int unsigned WayBits = $clog2(Ways)
) (
    input  wire                clk_i,
    input  wire                rst_i,
    input  wire                valid_i,
    output logic               ready_o,
    input  wire                insert_i,  // insert or remove
    input  wire  [KeyBits-1:0] key_i,
    input  wire  [SetBits-1:0] set_i,     // a function of the key
    output logic               done_o,    // the operation's answer, in one cycle
    output logic               found_o
);
  if (Sets != 1 << SetBits || Ways != 1 << WayBits || Sets < 2 || Ways < 2) begin : g_bad_size
    $error("Sets %0d and Ways %0d are not powers of two above 1", Sets, Ways);
  end

  typedef enum logic [1:0] {
    Clearing,
    Idle,
    Reading,
    Deciding
  } state_e;
  typedef struct packed {
    logic valid;
    logic [KeyBits-1:0] key;
  } way_t;

  state_e state_q;
  logic insert_q;
  logic [KeyBits-1:0] key_q;
  logic [SetBits-1:0] set_q;
  logic [WayBits-1:0] victim_q;
  way_t [Ways-1:0] ways, next_ways;
  logic [Ways-1:0] match, empty;
  logic [WayBits-1:0] place;
  logic write;

  ram_1r1w #(
      .Width(Ways * $bits(way_t)),
      .Depth(Sets)
  ) table_ram (
      .clk_i,
      .write_i(write),
      .write_index_i(set_q),
      .data_i(next_ways),
      .read_i(state_q == Reading),
      .read_index_i(set_q),
      .data_o(ways)
  );

  assign ready_o = state_q == Idle;
  assign done_o  = state_q == Deciding;
  assign found_o = |match;
  assign write   = state_q == Clearing || (state_q == Deciding && (insert_q ? !found_o : found_o));

  always_comb begin
    for (int unsigned i = 0; i < Ways; i++) begin
      match[i] = ways[i].valid && ways[i].key == key_q;
      empty[i] = !ways[i].valid;
    end
    place = victim_q;
    for (int unsigned i = Ways; i > 0; i--) if (empty[i-1]) place = WayBits'(i - 1);
    next_ways = ways;
    if (insert_q) next_ways[place] = '{valid: 1'b1, key: key_q};
    else for (int unsigned i = 0; i < Ways; i++) if (match[i]) next_ways[i].valid = 1'b0;
    if (state_q == Clearing) next_ways = '0;
  end

  always_ff @(posedge clk_i) begin
    case (state_q)
      Clearing: begin
        set_q <= set_q + 1'b1;
        if (set_q == '1) state_q <= Idle;
      end
      Idle:
      if (valid_i) begin
        insert_q <= insert_i;
        key_q <= key_i;
        set_q <= set_i;
        state_q <= Reading;
      end
      Reading: state_q <= Deciding;
      default: begin
        if (insert_q && !found_o && empty == '0) victim_q <= victim_q + 1'b1;
        state_q <= Idle;
      end
    endcase
    if (rst_i) begin
      state_q  <= Clearing;
      set_q    <= '0;
      victim_q <= '0;
    end
  end
endmodule

`default_nettype wire
