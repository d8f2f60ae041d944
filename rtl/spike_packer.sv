// SPDX-License-Identifier: Apache-2.0
//
// Pools the spikes that the cores fire (an OR over squares) and packs them into lines.
//
// The cores fire in (row, column, phase) order; in phase p core j fires channel p x Cores + j, so
// the spikes of a step arrive in the order in which spike_buffer packs them. Rows and columns
// that do not fill a square of the pooling are dropped.
//
// Cost: none; see line_packer for the cycles in which lines leave.

module spike_packer #(
  parameter  int unsigned Channels  = 16,
  parameter  int unsigned Cores     = 4,
  parameter  int unsigned Height    = 16,
  parameter  int unsigned Width     = 16,
  /// Side and stride of the max pooling; 1 for none.
  parameter  int unsigned Pool      = 1,
  /// Bits of a line, at least Cores.
  parameter  int unsigned LineWidth = 32,
  /// Derived: owned channels per core, and those of the last phase.
  localparam int unsigned Phases    = (Channels + Cores - 1) / Cores,
  localparam int unsigned LastCores = Channels - (Phases - 1) * Cores
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,

  // Spikes of one neuron per core
  input  logic                 spk_valid_i,
  input  logic [Cores-1:0]     spk_i,
  // The step has ended
  input  logic                 flush_i,

  // Line out
  output logic                 line_valid_o,
  output logic [LineWidth-1:0] line_o
);

  localparam int unsigned PhaseWidth = Phases > 1 ? $clog2(Phases) : 1;

  logic [PhaseWidth-1:0] phase_q;
  logic                  last_phase, emit;
  logic [Cores-1:0]      bits;

  assign last_phase = phase_q == PhaseWidth'(Phases - 1);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) phase_q <= '0;
    else if (spk_valid_i) phase_q <= last_phase ? '0 : phase_q + PhaseWidth'(1);
  end

  if (Pool == 1) begin : gen_no_pool
    assign emit = spk_valid_i;
    assign bits = spk_i;
  end else begin : gen_pool
    localparam int unsigned PooledWidth = Width / Pool;
    localparam int unsigned Entries     = PooledWidth * Phases;
    localparam int unsigned EntryWidth  = Entries > 1 ? $clog2(Entries) : 1;
    localparam int unsigned RowWidth    = $clog2(Height + 1);
    localparam int unsigned ColWidth    = $clog2(Width + 1);
    localparam int unsigned PoolWidth   = $clog2(Pool);

    logic [Cores-1:0]      row_mem [Entries];
    logic [RowWidth-1:0]   row_q;
    logic [ColWidth-1:0]   col_q;
    // Position inside the square, and first entry of its column
    logic [PoolWidth-1:0]  row_in_q, col_in_q;
    logic [EntryWidth-1:0] base_q, entry;
    logic                  inside_frame, last_col, last_row;

    assign last_col     = col_q == ColWidth'(Width - 1);
    assign last_row     = row_q == RowWidth'(Height - 1);
    assign inside_frame = row_q < RowWidth'(Height / Pool * Pool)
                          && col_q < ColWidth'(PooledWidth * Pool);
    assign entry        = base_q + EntryWidth'(phase_q);
    assign bits         = row_in_q == '0 && col_in_q == '0 ? spk_i : spk_i | row_mem[entry];
    // Rows and columns left over never reach the last of a square
    assign emit         = spk_valid_i && row_in_q == PoolWidth'(Pool - 1)
                          && col_in_q == PoolWidth'(Pool - 1);

    always_ff @(posedge clk_i) begin
      if (spk_valid_i && inside_frame) row_mem[entry] <= bits;
    end

    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) begin
        row_q    <= '0;
        col_q    <= '0;
        row_in_q <= '0;
        col_in_q <= '0;
        base_q   <= '0;
      end else if (spk_valid_i && last_phase) begin
        col_q    <= last_col ? '0 : col_q + ColWidth'(1);
        col_in_q <= last_col || col_in_q == PoolWidth'(Pool - 1) ? '0 : col_in_q + PoolWidth'(1);
        if (last_col) begin
          base_q   <= '0;
          row_q    <= last_row ? '0 : row_q + RowWidth'(1);
          row_in_q <= last_row || row_in_q == PoolWidth'(Pool - 1) ? '0
                                                                   : row_in_q + PoolWidth'(1);
        end else if (col_in_q == PoolWidth'(Pool - 1)) begin
          base_q <= base_q + EntryWidth'(Phases);
        end
      end
    end
  end

  line_packer #(
    .ChunkWidth(Cores),
    .LineWidth (LineWidth)
  ) u_line_packer (
    .clk_i,
    .rst_ni,
    .valid_i(emit),
    .bits_i (bits),
    .cnt_i  ($clog2(Cores + 1)'(last_phase ? LastCores : Cores)),
    .flush_i,
    .line_valid_o,
    .line_o
  );

  ////////////////
  // Assertions //
  ////////////////

`ifndef SYNTHESIS
  // A step ends only after its last spike.
  FlushAfterLastSpike: assert property (@(posedge clk_i) disable iff (!rst_ni)
      flush_i |-> !spk_valid_i && phase_q == '0);

  // Cores without a channel in the last phase are silent.
  NoSpikeWithoutChannel: assert property (@(posedge clk_i) disable iff (!rst_ni)
      spk_valid_i && last_phase |-> (spk_i >> LastCores) == '0);
`endif

endmodule
