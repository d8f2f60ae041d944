// SPDX-License-Identifier: Apache-2.0
//
// Takes input spikes from a stream, one inference per packet, and hands whole inferences to the
// engine. What is not an inference never reaches it: a packet that ends early or late, or that
// stops half-way, is dropped and reported, and the next word begins a new one.
//
// Cost: one word per cycle in and out. An inference is handed over from the second cycle after its
// last word; meanwhile the next one follows it into the same memory.

module input_stream #(
  parameter  int unsigned TimeSteps    = 8,
  /// Spikes of a time step, packed as spike_buffer says.
  parameter  int unsigned Inputs       = 512,
  parameter  int unsigned EncoderWidth = 32,
  /// Derived: words of a time step and of an inference, and the bits of a step's last word.
  localparam int unsigned StepWords    = (Inputs + EncoderWidth - 1) / EncoderWidth,
  localparam int unsigned Words        = TimeSteps * StepWords,
  localparam int unsigned LastBits     = Inputs - (StepWords - 1) * EncoderWidth
) (
  input  logic                    clk_i,
  input  logic                    rst_ni,

  // Stream of words; last_i stands on the last word of an inference
  input  logic                    valid_i,
  output logic                    ready_o,
  input  logic [EncoderWidth-1:0] word_i,
  input  logic                    last_i,
  // Cycles without a word inside an inference, after which it is dropped; 0 for no limit
  input  logic [31:0]             timeout_i,

  // Words to the engine
  output logic                    word_valid_o,
  input  logic                    word_ready_i,
  output logic [EncoderWidth-1:0] word_o,

  // An inference has arrived whole; one has been handed over whole
  output logic                    arrived_o,
  output logic                    handed_o,
  // In the middle of one on the stream; in the middle of handing one over
  output logic                    partial_o,
  output logic                    handing_o,

  // A packet is dropped: too short, too long, or stopped; bits beyond the last spike are dropped
  output logic                    short_o,
  output logic                    long_o,
  output logic                    stopped_o,
  output logic                    padding_o
);

  localparam int unsigned CntWidth     = $clog2(Words + 1);
  localparam int unsigned AddrWidth    = Words > 1 ? $clog2(Words) : 1;
  localparam int unsigned StepCntWidth = $clog2(StepWords + 1);
  // Bits of the last word of a step that stand for spikes
  localparam logic [EncoderWidth-1:0] LastMask = {EncoderWidth{1'b1}} >> (EncoderWidth - LastBits);

  logic [EncoderWidth-1:0] mem [Words];

  ///////////////////////////////////
  // From the stream to the memory //
  ///////////////////////////////////

  // An inference stands in the memory whole, not handed over whole yet; a packet is passed over
  logic                    whole_q, skip_q, awake_q;
  logic [CntWidth-1:0]     write_cnt_q, read_cnt_q;
  logic [StepCntWidth-1:0] step_cnt_q;
  logic                    take, store, last_of_step, last_of_inference;
  logic [EncoderWidth-1:0] mask;

  // A word is stored only where the one before it has been read
  assign ready_o           = awake_q && (skip_q || !whole_q || write_cnt_q < read_cnt_q);
  assign take              = valid_i && ready_o;
  assign store             = take && !skip_q;
  assign last_of_step      = step_cnt_q == StepCntWidth'(StepWords - 1);
  assign last_of_inference = write_cnt_q == CntWidth'(Words - 1);
  assign mask              = last_of_step ? LastMask : '1;

  assign partial_o = write_cnt_q != '0 || skip_q;
  assign arrived_o = store && last_of_inference && last_i;
  assign short_o   = store && !last_of_inference && last_i;
  assign long_o    = store && last_of_inference && !last_i;
  assign padding_o = store && (word_i & ~mask) != '0;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      awake_q     <= 1'b0;
      skip_q      <= 1'b0;
      write_cnt_q <= '0;
      step_cnt_q  <= '0;
    end else begin
      awake_q <= 1'b1;
      skip_q  <= long_o || (skip_q && !stopped_o && !(take && last_i));
      if (stopped_o || (store && (last_i || last_of_inference))) begin
        write_cnt_q <= '0;
        step_cnt_q  <= '0;
      end else if (store) begin
        write_cnt_q <= write_cnt_q + CntWidth'(1);
        step_cnt_q  <= last_of_step ? '0 : step_cnt_q + StepCntWidth'(1);
      end
    end
  end

  // How long the sender has offered nothing inside an inference
  logic [31:0] pause_q;
  logic        pausing;

  assign pausing   = partial_o && !valid_i;
  assign stopped_o = pausing && timeout_i != '0 && pause_q >= timeout_i - 32'd1;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) pause_q <= '0;
    else pause_q <= pausing && !stopped_o ? pause_q + 32'(pause_q != '1) : '0;
  end

  ///////////////////////////////////
  // From the memory to the engine //
  ///////////////////////////////////

  logic                word_valid_q, fetch, last_fetch, hand;
  logic [CntWidth-1:0] hand_cnt_q;

  assign fetch      = whole_q && (!word_valid_q || word_ready_i);
  assign last_fetch = fetch && read_cnt_q == CntWidth'(Words - 1);
  assign hand       = word_valid_q && word_ready_i;
  assign handed_o   = hand && hand_cnt_q == CntWidth'(Words - 1);
  assign handing_o  = hand_cnt_q != '0 || hand;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      whole_q      <= 1'b0;
      read_cnt_q   <= '0;
      word_valid_q <= 1'b0;
      hand_cnt_q   <= '0;
    end else begin
      whole_q      <= arrived_o || (whole_q && !last_fetch);
      word_valid_q <= fetch || (word_valid_q && !word_ready_i);
      if (fetch) read_cnt_q <= last_fetch ? '0 : read_cnt_q + CntWidth'(1);
      if (hand) hand_cnt_q <= handed_o ? '0 : hand_cnt_q + CntWidth'(1);
    end
  end

  always_ff @(posedge clk_i) begin
    if (store) mem[AddrWidth'(write_cnt_q)] <= word_i & mask;
    if (fetch) word_o <= mem[AddrWidth'(read_cnt_q)];
  end

  assign word_valid_o = word_valid_q;

  ////////////////
  // Assertions //
  ////////////////

`ifndef SYNTHESIS
  // The sender holds what it offers.
  OfferHoldsUntilTaken: assert property (@(posedge clk_i) disable iff (!rst_ni)
      valid_i && !ready_o |=> valid_i && $stable(word_i) && $stable(last_i));

  // So does this module.
  WordHoldsUntilTaken: assert property (@(posedge clk_i) disable iff (!rst_ni)
      word_valid_o && !word_ready_i |=> word_valid_o && $stable(word_o));

  // No word is overwritten before it is read.
  StoreOnlyWhereRead: assert property (@(posedge clk_i) disable iff (!rst_ni)
      store && whole_q |-> write_cnt_q < read_cnt_q);

  // An inference arrives only when the one before has left the memory.
  OneWholeInference: assert property (@(posedge clk_i) disable iff (!rst_ni)
      arrived_o |-> !whole_q);

  // A packet is dropped for one reason.
  OneReason: assert property (@(posedge clk_i) disable iff (!rst_ni)
      $onehot0({arrived_o, short_o, long_o, stopped_o}));

  // What has begun to be handed over goes on without a gap of this module's making.
  HandedWithoutGap: assert property (@(posedge clk_i) disable iff (!rst_ni)
      hand_cnt_q != '0 |-> word_valid_o);
`endif

endmodule
