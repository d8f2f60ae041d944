// SPDX-License-Identifier: Apache-2.0
//
// Packs spikes into lines: those of a cycle behind those that wait.
//
// Cost: none. Spikes are accepted in every cycle; a full line leaves in the cycle after its last
// spike, the incomplete one in the cycle after flush_i.

module line_packer #(
  /// Spikes of a cycle at most.
  parameter  int unsigned ChunkWidth = 4,
  /// Bits of a line, at least ChunkWidth.
  parameter  int unsigned LineWidth  = 32,
  /// Derived: bits of a number of spikes.
  localparam int unsigned CntWidth   = $clog2(ChunkWidth + 1)
) (
  input  logic                  clk_i,
  input  logic                  rst_ni,

  // Spikes, the first in the lowest bit; those beyond the number of them are 0
  input  logic                  valid_i,
  input  logic [ChunkWidth-1:0] bits_i,
  input  logic [CntWidth-1:0]   cnt_i,
  // The step has ended
  input  logic                  flush_i,

  // Line out
  output logic                  line_valid_o,
  output logic [LineWidth-1:0]  line_o
);

  localparam int unsigned FillWidth = $clog2(LineWidth + 1);
  localparam int unsigned SumWidth  = LineWidth + ChunkWidth;

  logic [FillWidth-1:0] fill_q;
  logic [LineWidth-1:0] waiting_q;
  logic [SumWidth-1:0]  joined;
  logic [FillWidth:0]   joined_fill;
  logic                 full;

  assign joined      = SumWidth'(waiting_q) | (SumWidth'(bits_i) << fill_q);
  assign joined_fill = (FillWidth + 1)'(fill_q) + (FillWidth + 1)'(cnt_i);
  assign full        = joined_fill >= (FillWidth + 1)'(LineWidth);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      fill_q       <= '0;
      waiting_q    <= '0;
      line_valid_o <= 1'b0;
    end else begin
      line_valid_o <= (valid_i && full) || (flush_i && fill_q != '0);
      if (flush_i) begin
        fill_q    <= '0;
        waiting_q <= '0;
      end else if (valid_i) begin
        fill_q    <= FillWidth'(full ? joined_fill - (FillWidth + 1)'(LineWidth) : joined_fill);
        waiting_q <= full ? LineWidth'(joined >> LineWidth) : LineWidth'(joined);
      end
    end
  end

  always_ff @(posedge clk_i) begin
    line_o <= flush_i ? waiting_q : LineWidth'(joined);
  end

  ////////////////
  // Assertions //
  ////////////////

  if (LineWidth < ChunkWidth) begin : gen_width_check
    $error("line_packer: LineWidth must be at least ChunkWidth, got %0d", LineWidth);
  end

`ifndef SYNTHESIS
  // A step ends only after its last spike.
  NoSpikeWithFlush: assert property (@(posedge clk_i) disable iff (!rst_ni)
      flush_i |-> !valid_i);

  // Beyond the number of spikes there is none.
  NoSpikeBeyondCount: assert property (@(posedge clk_i) disable iff (!rst_ni)
      valid_i |-> 32'(cnt_i) <= ChunkWidth && (bits_i >> cnt_i) == '0);

  // What waits is less than a line.
  WaitingBelowALine: assert property (@(posedge clk_i) disable iff (!rst_ni)
      32'(fill_q) < LineWidth);
`endif

endmodule
