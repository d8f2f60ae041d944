// SPDX-License-Identifier: Apache-2.0
//
// Sends each result of the engine as a packet: the words of all its time steps, as spike_buffer
// packs them. The result stays in the engine's output buffer, which holds two, until its words have
// been fetched; so a reader that is slow delays no inference that has begun.
//
// Cost: one word per cycle. The first leaves two cycles after the result is complete.

module output_stream #(
  parameter  int unsigned TimeSteps    = 8,
  /// Words of a time step, and those of a line of the output buffer.
  parameter  int unsigned StepWords    = 1,
  parameter  int unsigned LineWords    = 1,
  parameter  int unsigned EncoderWidth = 32
) (
  input  logic                    clk_i,
  input  logic                    rst_ni,

  // Results of the engine (see snn_top): a step is released when its last word is asked for
  input  logic                    result_valid_i,
  output logic                    result_ready_o,
  output logic                    peek_valid_o,
  output logic [31:0]             peek_line_o,
  output logic [7:0]              peek_sub_o,
  input  logic [EncoderWidth-1:0] peek_word_i,

  // Stream of words; last_o stands on the last word of a result
  output logic                    valid_o,
  input  logic                    ready_i,
  output logic [EncoderWidth-1:0] word_o,
  output logic                    last_o,

  // High in the cycle in which the last word of a result is asked for
  output logic                    left_o
);

  localparam int unsigned Lines     = (StepWords + LineWords - 1) / LineWords;
  localparam int unsigned Depth     = 2 * TimeSteps * Lines;
  localparam int unsigned LineWidth = $clog2(Depth);
  localparam int unsigned SubWidth  = LineWords > 1 ? $clog2(LineWords) : 1;
  localparam int unsigned WordWidth = StepWords > 1 ? $clog2(StepWords) : 1;
  localparam int unsigned StepWidth = TimeSteps > 1 ? $clog2(TimeSteps) : 1;

  ///////////////////////////////////
  // From the engine to the queue  //
  ///////////////////////////////////

  logic [LineWidth-1:0] line_q;
  logic [SubWidth-1:0]  sub_q;
  logic [WordWidth-1:0] word_q;
  logic [StepWidth-1:0] step_q;
  logic                 ask, last_word, last_step, last_of_line;
  // A word is on its way; it is the last of a result
  logic                 coming_q, coming_last_q;
  logic [2:0]           queued_q;

  assign last_word      = word_q == WordWidth'(StepWords - 1);
  assign last_step      = step_q == StepWidth'(TimeSteps - 1);
  assign last_of_line   = last_word || sub_q == SubWidth'(LineWords - 1);
  assign ask            = result_valid_i && queued_q + 3'(coming_q) < 3'd4;
  assign peek_valid_o   = ask;
  assign peek_line_o    = 32'(line_q);
  assign peek_sub_o     = 8'(sub_q);
  assign result_ready_o = ask && last_word;
  assign left_o         = ask && last_word && last_step;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      line_q   <= '0;
      sub_q    <= '0;
      word_q   <= '0;
      step_q   <= '0;
      coming_q <= 1'b0;
    end else begin
      coming_q <= ask;
      if (ask) begin
        word_q <= last_word ? '0 : word_q + WordWidth'(1);
        sub_q  <= last_of_line ? '0 : sub_q + SubWidth'(1);
        if (last_of_line) line_q <= line_q == LineWidth'(Depth - 1) ? '0 : line_q + LineWidth'(1);
        if (last_word) step_q <= last_step ? '0 : step_q + StepWidth'(1);
      end
    end
  end

  always_ff @(posedge clk_i) begin
    coming_last_q <= left_o;
  end

  //////////////////////////////////////////
  // From the queue of four to the stream //
  //////////////////////////////////////////

  logic [EncoderWidth:0] queue_mem [4];
  logic [1:0]            write_q, read_q;
  logic                  send;

  assign valid_o          = queued_q != '0;
  assign send             = valid_o && ready_i;
  assign {last_o, word_o} = queue_mem[read_q];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      write_q  <= '0;
      read_q   <= '0;
      queued_q <= '0;
    end else begin
      write_q  <= write_q + 2'(coming_q);
      read_q   <= read_q + 2'(send);
      queued_q <= queued_q + 3'(coming_q) - 3'(send);
    end
  end

  always_ff @(posedge clk_i) begin
    if (coming_q) queue_mem[write_q] <= {coming_last_q, peek_word_i};
  end

  ////////////////
  // Assertions //
  ////////////////

`ifndef SYNTHESIS
  // What is offered holds until it is taken.
  OfferHoldsUntilTaken: assert property (@(posedge clk_i) disable iff (!rst_ni)
      valid_o && !ready_i |=> valid_o && $stable(word_o) && $stable(last_o));

  // The queue never overflows.
  QueueHasRoom: assert property (@(posedge clk_i) disable iff (!rst_ni)
      coming_q |-> queued_q < 3'd4);

  // A word is asked for only while its result is there.
  AskOnlyForResults: assert property (@(posedge clk_i) disable iff (!rst_ni)
      peek_valid_o |-> result_valid_i);
`endif

endmodule
