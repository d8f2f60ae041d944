// SPDX-License-Identifier: Apache-2.0
//
// Pools the spikes of cores with nine banks (an OR over squares) and packs them into lines.
//
// Such cores fire a tile of 3 x 3 neurons at once: tile by tile of a row of tiles, phase by phase
// of a tile. Pool x Pool tiles hold 3 x 3 pooled pixels, so Pool rows of tiles make a strip of
// three pooled rows, in which a pixel is a word of all its channels. One strip is written while
// the one before is read, in the order in which spike_buffer packs it, Pixels at a time from any
// place on, also across the end of a row. Neurons outside the frame, and rows and columns that do
// not fill a square, belong to pixels that are never read.
//
// Cost: none. Spikes are accepted in every cycle, since a strip is read in no more cycles than it
// takes to fire Pool rows of tiles:
//   Pixels   cycles to read a strip    fired in Pool x TileCols x Phases cycles, with Pool^2 Phases
//   9        ceil(PooledWidth / 3)     1 and 2
//   3        PooledWidth               3 to 8
//   1        3 x PooledWidth           9 and more
// The last spikes of a step are in the line packer WriteBackCycles (see snn_layer) later than they
// would be without strips.

module strip_packer #(
  parameter  int unsigned Channels     = 16,
  parameter  int unsigned Cores        = 4,
  parameter  int unsigned Height       = 16,
  parameter  int unsigned Width        = 16,
  /// Side and stride of the max pooling; 1 for none.
  parameter  int unsigned Pool         = 1,
  /// Pixels that are read at once: 1, 3 or 9.
  parameter  int unsigned Pixels       = 3,
  /// Bits of a line, at least Pixels x Channels.
  parameter  int unsigned LineWidth    = 64,
  /// Derived: owned channels per core, map of tiles, map of pooled pixels.
  localparam int unsigned Phases       = (Channels + Cores - 1) / Cores,
  localparam int unsigned TileRows     = (Height + 2) / 3,
  localparam int unsigned TileCols     = (Width + 2) / 3,
  localparam int unsigned PooledHeight = Height / Pool,
  localparam int unsigned PooledWidth  = Width / Pool
) (
  input  logic                   clk_i,
  input  logic                   rst_ni,

  // Spikes of a tile, row by row, of one neuron per core
  input  logic                   spk_valid_i,
  input  logic [8:0][Cores-1:0]  spk_i,
  // The step has ended
  input  logic                   flush_i,

  // Line out
  output logic                   line_valid_o,
  output logic [LineWidth-1:0]   line_o
);

  // Strips that hold a pooled pixel, and pixels of the last one of them
  localparam int unsigned Strips      = (PooledHeight + 2) / 3;
  localparam int unsigned StripPixels = 3 * PooledWidth;
  localparam int unsigned LastPixels  = (PooledHeight - 3 * (Strips - 1)) * PooledWidth;
  // Each row of a strip lies in three or nine memories, by column; groups of Pool tile columns
  localparam int unsigned Columns     = Pixels == 9 ? 9 : 3;
  localparam int unsigned Groups      = (TileCols + Pool - 1) / Pool;
  localparam int unsigned Depth       = (3 * Groups + Columns - 1) / Columns;
  localparam int unsigned ChunkWidth  = Pixels * Channels;

  localparam int unsigned PhaseWidth  = Phases > 1 ? $clog2(Phases) : 1;
  localparam int unsigned SubWidth    = Pool > 1 ? $clog2(Pool) : 1;
  localparam int unsigned TileRowBits = TileRows > 1 ? $clog2(TileRows) : 1;
  localparam int unsigned TileColBits = TileCols > 1 ? $clog2(TileCols) : 1;
  localparam int unsigned GroupWidth  = Groups > 1 ? $clog2(Groups) : 1;
  localparam int unsigned StripWidth  = $clog2(Strips + 1);
  localparam int unsigned AddrWidth   = $clog2(2 * Depth);
  localparam int unsigned ColWidth    = $clog2(PooledWidth + 1);
  localparam int unsigned LeftWidth   = $clog2(StripPixels + Pixels + 1);

  ///////////////////////////////////////////////
  // Write: the pixels that a tile belongs to  //
  ///////////////////////////////////////////////

  logic [PhaseWidth-1:0]  phase_q;
  logic [TileColBits-1:0] tile_col_q;
  logic [TileRowBits-1:0] tile_row_q;
  // Tile inside its square of Pool x Pool, column of squares, and strip
  logic [SubWidth-1:0]    sub_row_q, sub_col_q;
  logic [GroupWidth-1:0]  group_q;
  logic [StripWidth-1:0]  wr_strip_q;
  logic                   wr_half_q;
  logic                   last_phase, last_tile_col, last_tile_row, row_ends, strip_ends, filled;

  assign last_phase    = phase_q == PhaseWidth'(Phases - 1);
  assign last_tile_col = tile_col_q == TileColBits'(TileCols - 1);
  assign last_tile_row = tile_row_q == TileRowBits'(TileRows - 1);
  assign row_ends      = spk_valid_i && last_phase && last_tile_col;
  assign strip_ends    = row_ends && (last_tile_row || sub_row_q == SubWidth'(Pool - 1));
  assign filled        = strip_ends && wr_strip_q < StripWidth'(Strips);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      phase_q    <= '0;
      tile_col_q <= '0;
      tile_row_q <= '0;
      sub_row_q  <= '0;
      sub_col_q  <= '0;
      group_q    <= '0;
      wr_strip_q <= '0;
      wr_half_q  <= 1'b0;
    end else begin
      if (spk_valid_i) phase_q <= last_phase ? '0 : phase_q + PhaseWidth'(1);
      if (row_ends) begin
        tile_col_q <= '0;
        sub_col_q  <= '0;
        group_q    <= '0;
        tile_row_q <= last_tile_row ? '0 : tile_row_q + TileRowBits'(1);
        sub_row_q  <= strip_ends ? '0 : sub_row_q + SubWidth'(1);
      end else if (spk_valid_i && last_phase) begin
        tile_col_q <= tile_col_q + TileColBits'(1);
        if (sub_col_q == SubWidth'(Pool - 1)) begin
          sub_col_q <= '0;
          group_q   <= group_q + GroupWidth'(1);
        end else begin
          sub_col_q <= sub_col_q + SubWidth'(1);
        end
      end
      if (strip_ends) wr_strip_q <= last_tile_row ? '0 : wr_strip_q + StripWidth'(1);
      if (filled) wr_half_q <= !wr_half_q;
    end
  end

  // Pooled rows, or columns, of the strip that the tile has a neuron of, and the first one of
  logic [2:0] row_met, row_begins, col_met, col_begins;

  function automatic logic [2:0] met(logic [SubWidth-1:0] sub);
    met = '0;
    for (int unsigned k = 0; k < 3; k++) met[(3*32'(sub)+k)/Pool] = 1'b1;
  endfunction
  function automatic logic [2:0] begins(logic [SubWidth-1:0] sub);
    begins = '0;
    for (int unsigned k = 0; k < 3; k++) begin
      if ((3 * 32'(sub) + k) % Pool == 0) begins[(3*32'(sub)+k)/Pool] = 1'b1;
    end
  endfunction

  assign row_met    = met(sub_row_q);
  assign row_begins = begins(sub_row_q);
  assign col_met    = met(sub_col_q);
  assign col_begins = begins(sub_col_q);

  // Spikes of this phase by pooled pixel
  logic [2:0][2:0][Cores-1:0] pooled;

  always_comb begin
    pooled = '0;
    for (int unsigned y = 0; y < 3; y++) begin
      for (int unsigned x = 0; x < 3; x++) begin
        pooled[(3*32'(sub_row_q)+y)/Pool][(3*32'(sub_col_q)+x)/Pool] |= spk_i[3*y+x];
      end
    end
  end

  /////////////////////////////////////////////
  // Read: pixels in the order of the buffer //
  /////////////////////////////////////////////

  // Strips that are written and not yet read
  logic [1:0]            ready_q;
  logic                  rd_half_q, read, last_read;
  logic [StripWidth-1:0] rd_strip_d, rd_strip_q;
  // Place of the next pixel, and pixels left from there on
  logic [1:0]            row_d, row_q;
  logic [ColWidth-1:0]   col_d, col_q;
  logic [LeftWidth-1:0]  left_d, left_q;
  // Of what was read: its place, and how many pixels it is
  logic                  chunk_valid_q;
  logic [1:0]            chunk_row_q;
  logic [ColWidth-1:0]   chunk_col_q;
  logic [3:0]            chunk_cnt_q;

  assign read      = ready_q != 2'd0;
  assign last_read = left_q <= LeftWidth'(Pixels);

  // Row in the upper bits and column of the pixel `count` behind one, at most two rows below it
  function automatic logic [33:0] behind(logic [1:0] row, int unsigned col, int unsigned count);
    logic [1:0]  to_row;
    int unsigned to_col;
    to_row = row;
    to_col = col + count;
    for (int unsigned k = 0; k < 2; k++) begin
      if (to_col >= PooledWidth) begin
        to_row += 2'd1;
        to_col -= PooledWidth;
      end
    end
    behind = {to_row, to_col};
  endfunction

  function automatic logic [LeftWidth-1:0] pixels_of(logic [StripWidth-1:0] strip);
    pixels_of = LeftWidth'(32'(strip) == Strips - 1 ? LastPixels : StripPixels);
  endfunction

  logic [33:0] next_place;

  assign next_place = behind(row_q, 32'(col_q), Pixels);

  always_comb begin
    rd_strip_d = rd_strip_q;
    row_d      = row_q;
    col_d      = col_q;
    left_d     = left_q;
    if (read && last_read) begin
      rd_strip_d = rd_strip_q == StripWidth'(Strips - 1) ? '0 : rd_strip_q + StripWidth'(1);
      row_d      = '0;
      col_d      = '0;
      left_d     = pixels_of(rd_strip_d);
    end else if (read) begin
      row_d      = next_place[33:32];
      col_d      = ColWidth'(next_place[31:0]);
      left_d     = left_q - LeftWidth'(Pixels);
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      ready_q       <= '0;
      rd_half_q     <= 1'b0;
      rd_strip_q    <= '0;
      row_q         <= '0;
      col_q         <= '0;
      left_q        <= pixels_of('0);
      chunk_valid_q <= 1'b0;
    end else begin
      ready_q       <= ready_q + 2'(filled) - 2'(read && last_read);
      rd_half_q     <= rd_half_q ^ (read && last_read);
      rd_strip_q    <= rd_strip_d;
      row_q         <= row_d;
      col_q         <= col_d;
      left_q        <= left_d;
      chunk_valid_q <= read;
    end
  end

  always_ff @(posedge clk_i) begin
    chunk_row_q <= row_q;
    chunk_col_q <= col_q;
    chunk_cnt_q <= last_read ? 4'(left_q) : 4'(Pixels);
  end

  //////////////
  // Memories //
  //////////////

  // Pixels that were read, by row and column
  logic [2:0][Columns-1:0][Channels-1:0] pixel;

  for (genvar y = 0; y < 3; y++) begin : gen_row
    for (genvar c = 0; c < Columns; c++) begin : gen_column
      logic [Channels-1:0]  mem [2*Depth];
      logic [Channels-1:0]  fired, rdata_q;
      logic                 we;
      logic [AddrWidth-1:0] wr_addr, rd_addr;

      // The channels of a phase stand at its place
      always_comb begin
        fired = '0;
        for (int unsigned i = 0; i < Channels; i++) begin
          fired[i] = pooled[y][c%3][i%Cores] && phase_q == PhaseWidth'(i / Cores);
        end
      end

      assign we      = spk_valid_i && row_met[y] && col_met[c%3]
                       && 32'(group_q) % (Columns / 3) == c / 3;
      assign wr_addr = AddrWidth'(32'(group_q) / (Columns / 3) + (wr_half_q ? Depth : 0));
      // From the column on to the end of its row, and from the begin of the rows below
      assign rd_addr = AddrWidth'((rd_half_q ? Depth : 0)
          + (row_q != 2'(y) ? 0 : 32'(col_q) / Columns + (c < 32'(col_q) % Columns ? 1 : 0)));

      // A pixel begins with the first phase of its first neuron
      always_ff @(posedge clk_i) begin
        if (we) begin
          mem[wr_addr] <= row_begins[y] && col_begins[c%3] && phase_q == '0
              ? fired : fired | mem[wr_addr];
        end
        if (read) rdata_q <= mem[rd_addr];
      end

      assign pixel[y][c] = rdata_q;
    end
  end

  logic [ChunkWidth-1:0] chunk;

  for (genvar j = 0; j < Pixels; j++) begin : gen_pixel
    logic [33:0] place;

    assign place = behind(chunk_row_q, 32'(chunk_col_q), j);
    assign chunk[j*Channels +: Channels] =
        4'(j) < chunk_cnt_q ? pixel[place[33:32]][place[31:0] % Columns] : '0;
  end

  line_packer #(
    .ChunkWidth(ChunkWidth),
    .LineWidth (LineWidth)
  ) u_line_packer (
    .clk_i,
    .rst_ni,
    .valid_i(chunk_valid_q),
    .bits_i (chunk),
    .cnt_i  ($clog2(ChunkWidth + 1)'(32'(chunk_cnt_q) * Channels)),
    .flush_i,
    .line_valid_o,
    .line_o
  );

  ////////////////
  // Assertions //
  ////////////////

  if (Pixels != 1 && Pixels != 3 && Pixels != 9) begin : gen_pixels_check
    $error("strip_packer: Pixels must be 1, 3 or 9, got %0d", Pixels);
  end

`ifndef SYNTHESIS
  // No spike is written into a strip that is still to be read.
  WriteOnlyWhenRead: assert property (@(posedge clk_i) disable iff (!rst_ni)
      spk_valid_i |-> ready_q != 2'd2);

  // A step ends only after its last spike, when all strips are read.
  FlushAfterLastStrip: assert property (@(posedge clk_i) disable iff (!rst_ni)
      flush_i |-> !spk_valid_i && phase_q == '0 && tile_row_q == '0 && tile_col_q == '0
                  && ready_q == 2'd0 && !chunk_valid_q && rd_strip_q == '0);

  // What is read at once lies in one strip.
  PixelInStrip: assert property (@(posedge clk_i) disable iff (!rst_ni)
      read |-> 32'(row_q) * PooledWidth + 32'(col_q) + 32'(left_q)
               == (32'(rd_strip_q) == Strips - 1 ? LastPixels : StripPixels));
`endif

endmodule
