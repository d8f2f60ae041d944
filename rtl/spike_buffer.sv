// SPDX-License-Identifier: Apache-2.0
//
// Spikes of one layer boundary: all time steps of two inferences, in packed words.
//
// Packing: the spikes of a step stand in (row, column, channel) order, channel fastest; spike i is
// bit (i mod EncoderWidth) of word (i / EncoderWidth). The producer writes lines of LineWords
// words, so that all its cores can hand over their spikes in one cycle; a step starts a new line.
//
// The reader may release a step unread. The host may look at any line but the one that is being
// written, while the reader asks for none; a result stays until the inference after next is
// written.
//
// Cost: none of its own. A line is written in the cycle that offers it, a word is read in one
// cycle, and a step counts as resident in the cycle after wr_step_done_i.

module spike_buffer #(
  /// Time steps of an inference.
  parameter  int unsigned TimeSteps    = 8,
  /// Words that hold one time step.
  parameter  int unsigned Words        = 16,
  /// Bits of a word.
  parameter  int unsigned EncoderWidth = 32,
  /// Words written at once.
  parameter  int unsigned LineWords    = 1,
  /// Derived: bits of a line, lines of a step, lines of both halves.
  localparam int unsigned LineWidth    = LineWords * EncoderWidth,
  localparam int unsigned Lines        = (Words + LineWords - 1) / LineWords,
  localparam int unsigned Depth        = 2 * TimeSteps * Lines,
  localparam int unsigned AddrWidth    = $clog2(Depth),
  localparam int unsigned SubWidth     = LineWords > 1 ? $clog2(LineWords) : 1,
  localparam int unsigned WordCntWidth = Words > 1 ? $clog2(Words) : 1,
  localparam int unsigned StepWidth    = TimeSteps > 1 ? $clog2(TimeSteps) : 1
) (
  input  logic                    clk_i,
  input  logic                    rst_ni,

  // A step may be read when it is written (1), or only when the whole inference is (0)
  input  logic                    pipelined_i,

  // Producer: lines of a step in order, then the end of the step
  output logic                    wr_free_o,
  input  logic                    wr_valid_i,
  input  logic [LineWidth-1:0]    wr_line_i,
  input  logic                    wr_step_done_i,

  // Consumer: words of a step in order (data one cycle after rd_next_i), then its release
  output logic                    rd_step_valid_o,
  input  logic                    rd_next_i,
  output logic [EncoderWidth-1:0] rd_word_o,
  input  logic                    rd_step_done_i,

  // Host: any word, while the reader asks for none
  input  logic                    peek_valid_i,
  input  logic [AddrWidth-1:0]    peek_line_i,
  input  logic [SubWidth-1:0]     peek_sub_i
);

  logic [LineWidth-1:0]    mem [Depth];
  logic [LineWidth-1:0]    rd_line_q;
  logic [SubWidth-1:0]     rd_sub_q;

  logic [AddrWidth-1:0]    wr_ptr_q, rd_ptr_d, rd_ptr_q;
  logic [SubWidth-1:0]     sub_d, sub_q;
  logic [WordCntWidth-1:0] word_cnt_d, word_cnt_q;
  logic [StepWidth-1:0]    wr_step_q, rd_step_q;
  // Inferences written whole and not yet released
  logic [1:0]              whole_q;
  logic                    wr_last_step, rd_last_step;

  assign wr_last_step    = wr_step_q == StepWidth'(TimeSteps - 1);
  assign rd_last_step    = rd_step_q == StepWidth'(TimeSteps - 1);
  assign wr_free_o       = whole_q != 2'd2;
  assign rd_step_valid_o = whole_q != 2'd0 || (pipelined_i && rd_step_q < wr_step_q);

  // Read position: next word of the line, next line, or first line of the next step
  always_comb begin
    rd_ptr_d   = rd_ptr_q;
    sub_d      = sub_q;
    word_cnt_d = word_cnt_q;
    if (rd_next_i) begin
      word_cnt_d = word_cnt_q + WordCntWidth'(1);
      sub_d      = sub_q + SubWidth'(1);
      if (word_cnt_q == WordCntWidth'(Words - 1) || sub_q == SubWidth'(LineWords - 1)) begin
        sub_d    = '0;
        rd_ptr_d = rd_ptr_q == AddrWidth'(Depth - 1) ? '0 : rd_ptr_q + AddrWidth'(1);
      end
      if (word_cnt_q == WordCntWidth'(Words - 1)) word_cnt_d = '0;
    end
  end

  // Control
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      wr_ptr_q   <= '0;
      rd_ptr_q   <= '0;
      sub_q      <= '0;
      word_cnt_q <= '0;
      wr_step_q  <= '0;
      rd_step_q  <= '0;
      whole_q    <= '0;
    end else begin
      rd_ptr_q   <= rd_ptr_d;
      sub_q      <= sub_d;
      word_cnt_q <= word_cnt_d;
      if (wr_valid_i) begin
        wr_ptr_q <= wr_ptr_q == AddrWidth'(Depth - 1) ? '0 : wr_ptr_q + AddrWidth'(1);
      end
      if (wr_step_done_i) wr_step_q <= wr_last_step ? '0 : wr_step_q + StepWidth'(1);
      if (rd_step_done_i) rd_step_q <= rd_last_step ? '0 : rd_step_q + StepWidth'(1);
      whole_q <= whole_q + 2'(wr_step_done_i && wr_last_step)
                         - 2'(rd_step_done_i && rd_last_step);
    end
  end

  // Memory: one write port, one read port
  always_ff @(posedge clk_i) begin
    if (wr_valid_i) mem[wr_ptr_q] <= wr_line_i;
    if (rd_next_i || peek_valid_i) begin
      rd_line_q <= mem[peek_valid_i ? peek_line_i : rd_ptr_q];
      rd_sub_q  <= peek_valid_i ? peek_sub_i : sub_q;
    end
  end

  assign rd_word_o = rd_line_q[rd_sub_q*EncoderWidth +: EncoderWidth];

  ////////////////
  // Assertions //
  ////////////////

`ifndef SYNTHESIS
  // Nothing is written into a half that is still to be read.
  WriteOnlyWhenFree: assert property (@(posedge clk_i) disable iff (!rst_ni)
      wr_valid_i |-> wr_free_o);

  // Nothing is read before it is written.
  ReadOnlyWhenResident: assert property (@(posedge clk_i) disable iff (!rst_ni)
      rd_next_i |-> rd_step_valid_o);

  // The host looks only while the consumer is idle.
  PeekOnlyWhenIdle: assert property (@(posedge clk_i) disable iff (!rst_ni)
      peek_valid_i |-> !rd_next_i);

  // At the end of a step exactly its lines have been written.
  logic [31:0] line_cnt_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) line_cnt_q <= '0;
    else line_cnt_q <= wr_step_done_i ? '0 : line_cnt_q + 32'(wr_valid_i);
  end

  StepHoldsItsLines: assert property (@(posedge clk_i) disable iff (!rst_ni)
      wr_step_done_i |-> line_cnt_q + 32'(wr_valid_i) == Lines);

  // At most two inferences are resident.
  TwoHalves: assert property (@(posedge clk_i) disable iff (!rst_ni) whole_q <= 2'd2);

  // A step ends where there is room for it, and is released only when it is resident.
  EndOnlyWhenFree: assert property (@(posedge clk_i) disable iff (!rst_ni)
      wr_step_done_i |-> wr_free_o);
  ReleaseOnlyResident: assert property (@(posedge clk_i) disable iff (!rst_ni)
      rd_step_done_i |-> rd_step_valid_o);

  // Room holds until a step is written, a resident step until it is released.
  FreeHoldsUntilWritten: assert property (@(posedge clk_i) disable iff (!rst_ni)
      wr_free_o && !wr_step_done_i |=> wr_free_o);
  ResidentHoldsUntilReleased: assert property (@(posedge clk_i) disable iff (!rst_ni)
      rd_step_valid_o && !rd_step_done_i |=> rd_step_valid_o);

  // A step is released when all of its words were read, or none.
  ReleaseBetweenSteps: assert property (@(posedge clk_i) disable iff (!rst_ni)
      rd_step_done_i |-> word_cnt_q == '0 && !rd_next_i);
`endif

endmodule
