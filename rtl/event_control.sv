// SPDX-License-Identifier: Apache-2.0
//
// Turns the packed spikes of a layer into operations of its neural cores, step by step.
//
// One step, counted from the cycle in which it is dispatched (cycle 0):
//   scan        cycles 1 to Words: one word per cycle; non-empty words enter a list that holds a
//               whole step, so that scanning never waits
//   accumulate  the first event of word k is in service from cycle 8 + k or when the events
//               before it are done; an event takes Phases x (taps inside the frame) cycles, and
//               Phases with nine banks
//   fire        from the later of cycle Words + 3 and the end of the last event: one neuron per
//               cycle, core and bank, Neurons cycles, then DrainCycles: 6, and 7 for Lapicque
//               neurons, and what write-back takes beyond that
// With S(k) the cycles of all events in words k and later, a step costs
//   max(Words + 3, max over non-empty k of (8 + k + S(k))) + fire + DrainCycles.
// After reset the layer is busy for Neurons cycles in which the input currents become zero.

module event_control #(
  parameter  int unsigned TimeSteps    = 8,
  /// Input map, as it is packed (see spike_buffer).
  parameter  int unsigned InChannels   = 2,
  parameter  int unsigned InHeight     = 16,
  parameter  int unsigned InWidth      = 16,
  /// Map of neurons; 1 x 1 for a dense layer.
  parameter  int unsigned OutHeight    = 16,
  parameter  int unsigned OutWidth     = 16,
  /// Square kernel and its zero padding; 1 and 0 for a dense layer.
  parameter  int unsigned Kernel       = 3,
  parameter  int unsigned Padding      = 1,
  /// A dense layer has one weight per input line and neuron.
  parameter  bit          Dense        = 1'b0,
  /// Memories that the neurons of a core are interleaved in: one, or nine, by (row mod 3,
  /// column mod 3), so that all taps of a 3 x 3 kernel are served at once.
  parameter  int unsigned Banks        = 1,
  /// Output channels that a core owns, rounded up.
  parameter  int unsigned Phases       = 4,
  parameter  int unsigned EncoderWidth = 32,
  /// Cycles from a fire operation at the cores until its spike leaves them.
  parameter  int unsigned FireLatency  = 3,
  /// Cycles that the last spikes of a step wait in the packer.
  parameter  int unsigned WriteBackCycles = 0,
  /// Cycles from the last cycle of StFire until the last spikes are in the buffer.
  localparam int unsigned DrainCycles  = FireLatency + 3 + WriteBackCycles,
  /// Derived sizes.
  localparam int unsigned Inputs       = InChannels * InHeight * InWidth,
  localparam int unsigned Words        = (Inputs + EncoderWidth - 1) / EncoderWidth,
  localparam int unsigned Side         = Banks == 9 ? 3 : 1,
  localparam int unsigned BankRows     = (OutHeight + Side - 1) / Side,
  localparam int unsigned BankCols     = (OutWidth + Side - 1) / Side,
  /// Neurons of a bank, and words of Banks weights.
  localparam int unsigned Neurons      = BankRows * BankCols * Phases,
  localparam int unsigned WordsOfMap   = Banks == 9 ? 1 : Kernel * Kernel,
  localparam int unsigned Weights      = (Dense ? Inputs : InChannels * WordsOfMap) * Phases,
  localparam int unsigned FlatWidth    = $clog2(Words * EncoderWidth),
  localparam int unsigned NeuronWidth  = Neurons > 1 ? $clog2(Neurons) : 1,
  localparam int unsigned WeightWidth  = Weights > 1 ? $clog2(Weights) : 1,
  localparam int unsigned PhaseWidth   = Phases > 1 ? $clog2(Phases) : 1,
  localparam int unsigned LaneWidth    = Banks > 1 ? $clog2(Banks) : 1
) (
  input  logic                    clk_i,
  input  logic                    rst_ni,

  // Input step (see spike_buffer), and room for the output step
  input  logic                    in_step_valid_i,
  output logic                    in_next_o,
  input  logic [EncoderWidth-1:0] in_word_i,
  input  logic                    out_free_i,
  // Low from the cycle after start_o to the end of the last step, and while currents are cleared
  output logic                    idle_o,
  // High in the first cycle of step 0
  output logic                    start_o,
  // High in the last cycle of a step: input released, output complete
  output logic                    step_done_o,
  // High in the last cycle of the last step
  output logic                    done_o,

  // Operation of the cores: at most one kind per cycle
  output logic                    op_clear_o,
  output logic                    op_accumulate_o,
  output logic                    op_fire_o,
  output logic                    op_first_step_o,
  // Neuron of each bank, whether an event reaches it, and by which weight of the word
  output logic [Banks-1:0][NeuronWidth-1:0] op_neuron_o,
  output logic [Banks-1:0]                  op_reached_o,
  output logic [Banks-1:0][LaneWidth-1:0]   op_lane_o,
  output logic [WeightWidth-1:0]  op_weight_o,
  output logic [PhaseWidth-1:0]   op_phase_o,
  // Ends the packed line of a step
  output logic                    flush_o,

  // Exactly one is high in every cycle from the dispatch of step 0 to the end of the last step
  output logic                    perf_encode_o,
  output logic                    perf_accumulate_o,
  output logic                    perf_fire_o,
  output logic                    perf_stall_o
);

  localparam int unsigned StepWidth  = TimeSteps > 1 ? $clog2(TimeSteps) : 1;
  localparam int unsigned CntWidth   = $clog2(Words + 1);
  localparam int unsigned IndexWidth = Words > 1 ? $clog2(Words) : 1;
  localparam int unsigned BitWidth   = $clog2(EncoderWidth);
  localparam int unsigned DrainWidth = $clog2(DrainCycles);
  localparam int unsigned PixelWidth = $clog2(InHeight * InWidth + 1);
  localparam int unsigned ChanWidth  = InChannels > 1 ? $clog2(InChannels) : 1;
  localparam int unsigned RowWidth   = $clog2(InHeight + 1);
  localparam int unsigned ColWidth   = $clog2(InWidth + 1);
  localparam int unsigned TapWidth   = Kernel > 1 ? $clog2(Kernel) : 1;

  typedef enum logic [2:0] {StIdle, StClear, StScan, StFire, StDrain} state_e;

  state_e                 state_d, state_q;
  logic [StepWidth-1:0]   step_d, step_q;
  logic [NeuronWidth-1:0] neuron_d, neuron_q;
  logic [PhaseWidth-1:0]  fire_phase_d, fire_phase_q;
  logic [DrainWidth-1:0]  drain_d, drain_q;
  logic                   dispatch, accumulate_done, last_neuron;

  //////////////////////////////////////////
  // Scan: words into the list of a step  //
  //////////////////////////////////////////

  logic [CntWidth-1:0]     scan_cnt_q;
  logic                    scan_valid_q;
  logic [IndexWidth-1:0]   scan_index_q;
  logic [CntWidth-1:0]     list_wr_q, list_rd_q;
  logic                    list_push, list_pop, list_fetch, list_valid_q;
  logic [EncoderWidth-1:0] list_word_mem [Words];
  logic [IndexWidth-1:0]   list_index_mem [Words];
  logic [EncoderWidth-1:0] list_word_q;
  logic [IndexWidth-1:0]   list_index_q;

  assign in_next_o  = state_q == StScan && scan_cnt_q != CntWidth'(Words);
  assign list_push  = scan_valid_q && in_word_i != '0;
  assign list_fetch = list_rd_q != list_wr_q && (!list_valid_q || list_pop);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      scan_cnt_q   <= '0;
      scan_valid_q <= 1'b0;
      list_wr_q    <= '0;
      list_rd_q    <= '0;
      list_valid_q <= 1'b0;
    end else begin
      scan_valid_q <= in_next_o;
      if (dispatch) begin
        scan_cnt_q <= '0;
        list_wr_q  <= '0;
        list_rd_q  <= '0;
      end else begin
        if (in_next_o) scan_cnt_q <= scan_cnt_q + CntWidth'(1);
        if (list_push) list_wr_q <= list_wr_q + CntWidth'(1);
        if (list_fetch) list_rd_q <= list_rd_q + CntWidth'(1);
      end
      if (list_fetch) list_valid_q <= 1'b1;
      else if (list_pop) list_valid_q <= 1'b0;
    end
  end

  always_ff @(posedge clk_i) begin
    scan_index_q <= IndexWidth'(scan_cnt_q);
    if (list_push) begin
      list_word_mem[IndexWidth'(list_wr_q)]  <= in_word_i;
      list_index_mem[IndexWidth'(list_wr_q)] <= scan_index_q;
    end
    if (list_fetch) begin
      list_word_q  <= list_word_mem[IndexWidth'(list_rd_q)];
      list_index_q <= list_index_mem[IndexWidth'(list_rd_q)];
    end
  end

  ///////////////////////////////////////////////////
  // Events: one set bit at a time, lowest first   //
  ///////////////////////////////////////////////////

  logic [EncoderWidth-1:0] pending_d, pending_q, pending_rest;
  logic [IndexWidth-1:0]   pending_index_q;
  logic                    pending_valid, pending_take, pending_last;

  // A flat spike address, then its pixel and channel, then its row, column and channel
  logic                    flat_valid_q, pixel_valid_q, event_valid_q;
  logic                    flat_ready, pixel_ready, event_ready, event_last;
  logic [FlatWidth-1:0]    flat_q;
  logic [FlatWidth-1:0]    pixel_flat_q;
  logic [PixelWidth-1:0]   pixel_q;
  logic [ChanWidth-1:0]    pixel_chan_q;

  assign pending_valid = pending_q != '0;
  assign pending_rest  = pending_q & (pending_q - EncoderWidth'(1));
  assign pending_last  = pending_rest == '0;
  assign pending_take  = pending_valid && flat_ready;
  assign list_pop      = list_valid_q && (!pending_valid || (pending_take && pending_last));
  assign event_ready   = !event_valid_q || event_last;
  assign pixel_ready   = !pixel_valid_q || event_ready;
  assign flat_ready    = !flat_valid_q || pixel_ready;

  always_comb begin
    pending_d = pending_q;
    if (pending_take) pending_d = pending_rest;
    if (list_pop) pending_d = list_word_q;
  end

  // Priority encoder: the lowest set bit wins
  function automatic logic [BitWidth-1:0] lowest(logic [EncoderWidth-1:0] word);
    lowest = '0;
    for (int i = int'(EncoderWidth) - 1; i >= 0; i--) begin
      if (word[i]) lowest = BitWidth'(i);
    end
  endfunction

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      pending_q     <= '0;
      flat_valid_q  <= 1'b0;
      pixel_valid_q <= 1'b0;
      event_valid_q <= 1'b0;
    end else begin
      pending_q <= pending_d;
      if (flat_ready) flat_valid_q <= pending_valid;
      if (pixel_ready) pixel_valid_q <= flat_valid_q;
      if (event_ready) event_valid_q <= pixel_valid_q;
    end
  end

  always_ff @(posedge clk_i) begin
    if (list_pop) pending_index_q <= list_index_q;
    if (pending_take) flat_q <= FlatWidth'(pending_index_q) * FlatWidth'(EncoderWidth)
                                + FlatWidth'(lowest(pending_q));
    if (flat_valid_q && pixel_ready) begin
      pixel_flat_q <= flat_q;
      pixel_q      <= PixelWidth'(32'(flat_q) / InChannels);
      pixel_chan_q <= ChanWidth'(32'(flat_q) % InChannels);
    end
  end

  //////////////////////////////////////////////////////////////////////////////////
  // Service: owned channel by owned channel, tap by tap or all taps at once      //
  //////////////////////////////////////////////////////////////////////////////////

  logic [PhaseWidth-1:0]             service_phase_q;
  logic                              last_phase, last_tap;
  logic [Banks-1:0][NeuronWidth-1:0] service_neuron;
  logic [Banks-1:0]                  service_reached;
  logic [Banks-1:0][LaneWidth-1:0]   service_lane;
  logic [WeightWidth-1:0]            service_weight;

  assign last_phase = service_phase_q == PhaseWidth'(Phases - 1);
  assign event_last = event_valid_q && last_phase && last_tap;

  if (Dense) begin : gen_dense
    logic [FlatWidth-1:0] event_flat_q;

    assign last_tap        = 1'b1;
    assign service_neuron  = NeuronWidth'(service_phase_q);
    assign service_reached = '1;
    assign service_lane    = '0;
    assign service_weight  = WeightWidth'(32'(event_flat_q) * Phases + 32'(service_phase_q));

    always_ff @(posedge clk_i) begin
      if (event_ready) event_flat_q <= pixel_flat_q;
    end

    logic unused_pixel;
    assign unused_pixel = ^{pixel_q, pixel_chan_q};
  end else if (Banks == 9) begin : gen_banked
    // The taps reach three rows and columns up to (row + Padding, col + Padding), so one of each
    // row, and column, of banks
    localparam int unsigned TileRowWidth = $clog2((InHeight + Padding) / 3 + 1) + 1;
    localparam int unsigned TileColWidth = $clog2((InWidth + Padding) / 3 + 1) + 1;

    logic [31:0]          far_row, far_col;
    logic [ChanWidth-1:0] event_chan_q;

    assign far_row = 32'(pixel_q) / InWidth + Padding;
    assign far_col = 32'(pixel_q) % InWidth + Padding;

    // Tap k reaches `far` - k: that of a bank, and whether it stays in 0 to Side - 1
    function automatic int unsigned tap(int unsigned far, int unsigned bank);
      tap = (far + 3 - bank) % 3;
    endfunction
    function automatic logic reached(int unsigned far, int unsigned bank, int unsigned side);
      reached = far >= tap(far, bank) && far - tap(far, bank) < side;
    endfunction

    assign last_tap       = 1'b1;
    assign service_weight = WeightWidth'(32'(event_chan_q) * Phases + 32'(service_phase_q));

    always_ff @(posedge clk_i) begin
      if (event_ready) event_chan_q <= pixel_chan_q;
    end

    for (genvar y = 0; y < 3; y++) begin : gen_row
      logic [1:0]              ky_q;
      logic [TileRowWidth-1:0] tile_q;
      logic                    reached_q;

      always_ff @(posedge clk_i) begin
        if (event_ready) begin
          ky_q      <= 2'(tap(far_row, y));
          tile_q    <= TileRowWidth'((far_row - tap(far_row, y)) / 3);
          reached_q <= reached(far_row, y, OutHeight);
        end
      end
    end

    for (genvar x = 0; x < 3; x++) begin : gen_col
      logic [1:0]              kx_q;
      logic [TileColWidth-1:0] tile_q;
      logic                    reached_q;

      always_ff @(posedge clk_i) begin
        if (event_ready) begin
          kx_q      <= 2'(tap(far_col, x));
          tile_q    <= TileColWidth'((far_col - tap(far_col, x)) / 3);
          reached_q <= reached(far_col, x, OutWidth);
        end
      end
    end

    for (genvar b = 0; b < 9; b++) begin : gen_bank
      assign service_reached[b] = gen_row[b/3].reached_q && gen_col[b%3].reached_q;
      assign service_lane[b]    = LaneWidth'(3 * 32'(gen_row[b/3].ky_q) + 32'(gen_col[b%3].kx_q));
      assign service_neuron[b]  = NeuronWidth'(
          (32'(gen_row[b/3].tile_q) * BankCols + 32'(gen_col[b%3].tile_q)) * Phases
          + 32'(service_phase_q));
    end

    logic unused_flat;
    assign unused_flat = ^pixel_flat_q;
  end else begin : gen_conv
    logic [RowWidth-1:0]  row, event_row_q;
    logic [ColWidth-1:0]  col, event_col_q;
    logic [ChanWidth-1:0] event_chan_q;
    // Kernel rows and columns that reach a neuron inside the frame
    logic [TapWidth-1:0]  first_ky, last_ky, last_ky_q, ky_q;
    logic [TapWidth-1:0]  first_kx, last_kx, first_kx_q, last_kx_q, kx_q;
    logic [TapWidth-1:0]  first_ky_q;

    assign row = RowWidth'(32'(pixel_q) / InWidth);
    assign col = ColWidth'(32'(pixel_q) % InWidth);

    // Tap k reaches neuron (position + Padding - k), which must lie in 0 to Side - 1
    function automatic logic [TapWidth-1:0] first_tap(int unsigned position, int unsigned side);
      first_tap = position + Padding >= side ? TapWidth'(position + Padding - side + 1) : '0;
    endfunction
    function automatic logic [TapWidth-1:0] final_tap(int unsigned position);
      final_tap = position + Padding + 1 < Kernel ? TapWidth'(position + Padding)
                                                  : TapWidth'(Kernel - 1);
    endfunction

    assign first_ky = first_tap(32'(row), OutHeight);
    assign last_ky  = final_tap(32'(row));
    assign first_kx = first_tap(32'(col), OutWidth);
    assign last_kx  = final_tap(32'(col));

    assign last_tap        = ky_q == last_ky_q && kx_q == last_kx_q;
    assign service_reached = '1;
    assign service_lane    = '0;
    assign service_neuron  = NeuronWidth'(
        ((32'(event_row_q) + Padding - 32'(ky_q)) * OutWidth
         + (32'(event_col_q) + Padding - 32'(kx_q))) * Phases + 32'(service_phase_q));
    assign service_weight  = WeightWidth'(
        ((32'(event_chan_q) * Kernel + 32'(ky_q)) * Kernel + 32'(kx_q)) * Phases
        + 32'(service_phase_q));

    always_ff @(posedge clk_i) begin
      if (event_ready) begin
        event_row_q  <= row;
        event_col_q  <= col;
        event_chan_q <= pixel_chan_q;
        first_ky_q   <= first_ky;
        last_ky_q    <= last_ky;
        first_kx_q   <= first_kx;
        last_kx_q    <= last_kx;
        ky_q         <= first_ky;
        kx_q         <= first_kx;
      end else if (kx_q != last_kx_q) begin
        kx_q <= kx_q + TapWidth'(1);
      end else begin
        kx_q <= first_kx_q;
        ky_q <= ky_q == last_ky_q ? first_ky_q : ky_q + TapWidth'(1);
      end
    end

    logic unused_flat;
    assign unused_flat = ^pixel_flat_q;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      service_phase_q <= '0;
    end else if (event_valid_q && last_tap) begin
      service_phase_q <= last_phase ? '0 : service_phase_q + PhaseWidth'(1);
    end
  end

  //////////////////////////
  // Step by step         //
  //////////////////////////

  assign dispatch    = state_q == StIdle && in_step_valid_i && out_free_i;
  assign start_o     = dispatch && step_q == '0;
  assign idle_o      = state_q == StIdle && step_q == '0;
  assign last_neuron = neuron_q == NeuronWidth'(Neurons - 1);
  // Nothing is left to scan, on its way, or in service after this cycle
  assign accumulate_done = scan_cnt_q == CntWidth'(Words) && !scan_valid_q
      && list_rd_q == list_wr_q && !list_valid_q && !pending_valid
      && !flat_valid_q && !pixel_valid_q && (!event_valid_q || event_last);

  always_comb begin
    state_d      = state_q;
    step_d       = step_q;
    neuron_d     = '0;
    fire_phase_d = '0;
    drain_d      = '0;

    unique case (state_q)
      // StClear: once after reset, all input currents become zero
      StClear: begin
        neuron_d = neuron_q + NeuronWidth'(1);
        if (last_neuron) begin
          neuron_d = '0;
          state_d  = StIdle;
        end
      end
      // StIdle: wait until the next step is resident and its output has room
      StIdle: begin
        if (dispatch) state_d = StScan;
      end
      // StScan: spikes become operations until none is left
      StScan: begin
        if (accumulate_done) state_d = StFire;
      end
      // StFire: every neuron once
      StFire: begin
        neuron_d     = neuron_q + NeuronWidth'(1);
        fire_phase_d = fire_phase_q == PhaseWidth'(Phases - 1) ? '0
                                                               : fire_phase_q + PhaseWidth'(1);
        if (last_neuron) begin
          neuron_d     = '0;
          fire_phase_d = '0;
          state_d      = StDrain;
        end
      end
      // StDrain: the last spikes reach the buffer
      StDrain: begin
        drain_d = drain_q + DrainWidth'(1);
        if (step_done_o) begin
          drain_d = '0;
          state_d = StIdle;
          step_d  = done_o ? '0 : step_q + StepWidth'(1);
        end
      end
      default: state_d = StIdle;
    endcase
  end

  assign step_done_o = state_q == StDrain && drain_q == DrainWidth'(DrainCycles - 1);
  assign done_o      = step_done_o && step_q == StepWidth'(TimeSteps - 1);
  // One cycle before the end: every spike is packed, the incomplete line is left
  assign flush_o     = state_q == StDrain && drain_q == DrainWidth'(DrainCycles - 2);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q      <= StClear;
      step_q       <= '0;
      neuron_q     <= '0;
      fire_phase_q <= '0;
      drain_q      <= '0;
    end else begin
      state_q      <= state_d;
      step_q       <= step_d;
      neuron_q     <= neuron_d;
      fire_phase_q <= fire_phase_d;
      drain_q      <= drain_d;
    end
  end

  // Operation register
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      op_clear_o      <= 1'b0;
      op_accumulate_o <= 1'b0;
      op_fire_o       <= 1'b0;
    end else begin
      op_clear_o      <= state_q == StClear;
      op_accumulate_o <= event_valid_q;
      op_fire_o       <= state_q == StFire;
    end
  end

  always_ff @(posedge clk_i) begin
    op_neuron_o  <= event_valid_q ? service_neuron : {Banks{neuron_q}};
    op_reached_o <= service_reached;
    op_lane_o    <= service_lane;
    op_weight_o  <= service_weight;
    op_phase_o   <= event_valid_q ? service_phase_q : fire_phase_q;
  end

  assign op_first_step_o = step_q == '0;

  // Where the cycle goes: fire before accumulate before encode before stall
  assign perf_fire_o       = state_q == StFire || state_q == StDrain;
  assign perf_accumulate_o = state_q == StScan && event_valid_q;
  assign perf_encode_o     = state_q == StScan && !event_valid_q;
  assign perf_stall_o      = state_q == StIdle && (dispatch || step_q != '0);

  ////////////////
  // Assertions //
  ////////////////

  if (EncoderWidth < 8 || EncoderWidth > 128) begin : gen_width_check
    $error("event_control: EncoderWidth must be 8 to 128, got %0d", EncoderWidth);
  end
  if (Banks != 1 && (Banks != 9 || Dense || Kernel != 3)) begin : gen_banks_check
    $error("event_control: Banks must be 1, or 9 for a 3 x 3 kernel, got %0d", Banks);
  end

`ifndef SYNTHESIS
  // Events are served only while a step is scanned, so fire never meets one.
  EventsOnlyWhileScanning: assert property (@(posedge clk_i) disable iff (!rst_ni)
      event_valid_q |-> state_q == StScan);

  // A cycle is counted in at most one bucket.
  OneBucketPerCycle: assert property (@(posedge clk_i) disable iff (!rst_ni)
      $onehot0({perf_fire_o, perf_accumulate_o, perf_encode_o, perf_stall_o}));

  // The list never takes more than one step.
  ListHoldsOneStep: assert property (@(posedge clk_i) disable iff (!rst_ni)
      list_push |-> list_wr_q < CntWidth'(Words));

  // No event lies outside the input, as it would if the last word had bits set beyond it.
  EventInRange: assert property (@(posedge clk_i) disable iff (!rst_ni)
      flat_valid_q |-> 32'(flat_q) < Inputs);

  // No operation leaves the memories.
  for (genvar b = 0; b < Banks; b++) begin : gen_range
    NeuronInRange: assert property (@(posedge clk_i) disable iff (!rst_ni)
        (op_accumulate_o && op_reached_o[b]) || op_fire_o |-> 32'(op_neuron_o[b]) < Neurons);
    LaneInRange: assert property (@(posedge clk_i) disable iff (!rst_ni)
        op_accumulate_o && op_reached_o[b] |-> 32'(op_lane_o[b]) < Banks);
  end
  WeightInRange: assert property (@(posedge clk_i) disable iff (!rst_ni)
      op_accumulate_o |-> 32'(op_weight_o) < Weights);

  // The step changes only when no operation of it is under way.
  StepHoldsWhileFiring: assert property (@(posedge clk_i) disable iff (!rst_ni)
      op_accumulate_o || op_fire_o |=> $stable(op_first_step_o));

  // Words are asked for only while their step is resident.
  WordsOnlyOfResidentStep: assert property (@(posedge clk_i) disable iff (!rst_ni)
      in_next_o |-> in_step_valid_i);

  // A step begins only when there is room for its output.
  StepOnlyWithRoom: assert property (@(posedge clk_i) disable iff (!rst_ni)
      $rose(state_q == StScan) |-> $past(in_step_valid_i && out_free_i));

  // In an inference every cycle is in a bucket, and outside of one none.
  OneBucketInAnInference: assert property (@(posedge clk_i) disable iff (!rst_ni)
      $countones({perf_fire_o, perf_accumulate_o, perf_encode_o, perf_stall_o})
          == 32'(start_o || (!idle_o && state_q != StClear)));

  // A step ends one cycle after its flush.
  FlushEndsTheStep: assert property (@(posedge clk_i) disable iff (!rst_ni)
      flush_o |=> step_done_o);
`endif

endmodule
