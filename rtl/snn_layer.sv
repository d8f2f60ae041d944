// SPDX-License-Identifier: Apache-2.0
//
// One weighted layer: an event control, its neural cores, and the packer of their spikes.
// Core j owns the output channels j, j + Cores, j + 2 Cores, ...
//
// Cost: that of event_control. The counters show where the cycles of the last inference went.

module snn_layer #(
  parameter  int unsigned TimeSteps    = 8,
  parameter  int unsigned InChannels   = 2,
  parameter  int unsigned InHeight     = 16,
  parameter  int unsigned InWidth      = 16,
  parameter  int unsigned OutChannels  = 16,
  parameter  int unsigned OutHeight    = 16,
  parameter  int unsigned OutWidth     = 16,
  parameter  int unsigned Kernel       = 3,
  parameter  int unsigned Padding      = 1,
  parameter  int unsigned Pool         = 1,
  parameter  bit          Dense        = 1'b0,
  parameter  int unsigned Cores        = 4,
  parameter  int unsigned EncoderWidth = 32,
  parameter  int unsigned WeightBits   = 4,
  parameter  int unsigned MembraneBits = 16,
  /// Lapicque neurons instead of leaky integrate-and-fire ones.
  parameter  bit          Lapicque     = 1'b0,
  /// Banks of each core; nine serve all taps of a 3 x 3 kernel at once.
  parameter  int unsigned Banks        = 1,
  /// Bits of a line of the output buffer (see spike_buffer).
  parameter  int unsigned LineWidth    = 32,
  /// Derived sizes.
  localparam int unsigned Inputs       = InChannels * InHeight * InWidth,
  localparam int unsigned FanIn        = Dense ? Inputs : InChannels * Kernel * Kernel,
  localparam int unsigned Phases       = (OutChannels + Cores - 1) / Cores,
  localparam int unsigned LastCores    = OutChannels - (Phases - 1) * Cores,
  localparam int unsigned Side         = Banks == 9 ? 3 : 1,
  localparam int unsigned TileRows     = (OutHeight + Side - 1) / Side,
  localparam int unsigned TileCols     = (OutWidth + Side - 1) / Side,
  localparam int unsigned Neurons      = TileRows * TileCols * Phases,
  localparam int unsigned Weights      = FanIn / Banks * Phases,
  localparam int unsigned CurrentBits  = WeightBits + $clog2(FanIn + 1),
  localparam int unsigned NeuronWidth  = Neurons > 1 ? $clog2(Neurons) : 1,
  localparam int unsigned WeightWidth  = Weights > 1 ? $clog2(Weights) : 1,
  localparam int unsigned PhaseWidth   = Phases > 1 ? $clog2(Phases) : 1,
  localparam int unsigned LaneWidth    = Banks > 1 ? $clog2(Banks) : 1,
  localparam int unsigned FireLatency  = Lapicque ? 4 : 3
) (
  input  logic                    clk_i,
  input  logic                    rst_ni,

  // Configuration writes, while the layer is idle
  input  logic                    cfg_we_i,
  input  logic [1:0]              cfg_space_i,
  input  logic [15:0]             cfg_core_i,
  input  logic [31:0]             cfg_addr_i,
  input  logic [31:0]             cfg_data_i,

  // Input step and room for the output step (see spike_buffer)
  input  logic                    in_step_valid_i,
  output logic                    in_next_o,
  input  logic [EncoderWidth-1:0] in_word_i,
  input  logic                    out_free_i,
  output logic                    out_line_valid_o,
  output logic [LineWidth-1:0]    out_line_o,
  // Between inferences; first cycle of one, last cycle of a step, last cycle of an inference
  output logic                    idle_o,
  output logic                    start_o,
  output logic                    step_done_o,
  output logic                    done_o,

  // Bucket of this cycle, one bit each (0 encode, 1 accumulate, 2 fire, 3 stall), none between
  // inferences; cycles of the last inference by bucket
  output logic [3:0]              bucket_o,
  output logic [3:0][31:0]        bucket_cnt_o
);

  // Spaces of the configuration writes
  typedef enum logic [1:0] {SpaceWeight, SpaceBias, SpaceConstant} space_e;

  ///////////////
  // Constants //
  ///////////////

  // Addresses of the constants: 0 threshold, 1 gain, 2 decay, 3 reset to zero. The decay of LIF
  // neurons is three fields of {enable, negative, shift[3:0]}, the first in the lowest bits; that
  // of Lapicque neurons a signed number in 1/65536.
  logic signed [MembraneBits-1:0] threshold_q;
  logic [3:0]                     gain_q;
  logic [17:0]                    decay_q;
  logic                           reset_zero_q;

  always_ff @(posedge clk_i) begin
    if (cfg_we_i && cfg_space_i == SpaceConstant) begin
      unique case (cfg_addr_i[1:0])
        2'd0: threshold_q <= MembraneBits'(cfg_data_i);
        2'd1: gain_q <= cfg_data_i[3:0];
        2'd2: decay_q <= cfg_data_i[17:0];
        default: reset_zero_q <= cfg_data_i[0];
      endcase
    end
  end

  ////////////////
  // Write-back //
  ////////////////

  // Pixels that strip_packer reads at once: enough for it to keep up with the cores
  localparam int unsigned TileRate    = Pool * Pool * Phases;
  localparam int unsigned Pixels      = TileRate >= 9 ? 1 : TileRate >= 3 ? 3 : 9;
  // Strips of Pool rows of tiles, pooled rows of the last one, and cycles in which it is fired
  localparam int unsigned Strips      = (TileRows + Pool - 1) / Pool;
  localparam int unsigned LastRows    = OutHeight / Pool - 3 * (Strips - 1);
  localparam int unsigned LastFire    = (TileRows - (Strips - 1) * Pool) * TileCols * Phases;
  // Cycles to read a whole strip and the last one, and to wait for the one before it
  localparam int unsigned StripCycles = (3 * (OutWidth / Pool) + Pixels - 1) / Pixels;
  localparam int unsigned LastCycles  = (LastRows * (OutWidth / Pool) + Pixels - 1) / Pixels;
  localparam int unsigned WaitCycles  = Strips > 1 && StripCycles > LastFire
                                        ? StripCycles - LastFire : 0;
  localparam int unsigned WriteBackCycles = Banks == 1 ? 0 : 1 + WaitCycles + LastCycles;

  /////////////
  // Control //
  /////////////

  logic                   op_clear, op_accumulate, op_fire, op_first_step, flush;
  logic [WeightWidth-1:0] op_weight;
  logic [PhaseWidth-1:0]  op_phase;
  logic [3:0]             perf;
  logic [Banks-1:0]       op_reached;
  logic [Banks-1:0][NeuronWidth-1:0] op_neuron;
  logic [Banks-1:0][LaneWidth-1:0]   op_lane;

  event_control #(
    .TimeSteps   (TimeSteps),
    .InChannels  (InChannels),
    .InHeight    (InHeight),
    .InWidth     (InWidth),
    .OutHeight   (OutHeight),
    .OutWidth    (OutWidth),
    .Kernel      (Kernel),
    .Padding     (Padding),
    .Dense       (Dense),
    .Banks       (Banks),
    .Phases      (Phases),
    .EncoderWidth(EncoderWidth),
    .FireLatency (FireLatency),
    .WriteBackCycles(WriteBackCycles)
  ) u_event_control (
    .clk_i,
    .rst_ni,
    .in_step_valid_i,
    .in_next_o,
    .in_word_i,
    .out_free_i,
    .idle_o,
    .start_o,
    .step_done_o,
    .done_o,
    .op_clear_o       (op_clear),
    .op_accumulate_o  (op_accumulate),
    .op_fire_o        (op_fire),
    .op_first_step_o  (op_first_step),
    .op_neuron_o      (op_neuron),
    .op_reached_o     (op_reached),
    .op_lane_o        (op_lane),
    .op_weight_o      (op_weight),
    .op_phase_o       (op_phase),
    .flush_o          (flush),
    .perf_encode_o    (perf[0]),
    .perf_accumulate_o(perf[1]),
    .perf_fire_o      (perf[2]),
    .perf_stall_o     (perf[3])
  );

  //////////////////////////
  // Cores and write-back //
  //////////////////////////

  logic                        spk_valid;
  logic [Banks-1:0][Cores-1:0] spk;
  // A word of nine weights is written lane by lane
  logic [31:0]                 cfg_word;
  logic [3:0]                  cfg_lane;

  assign cfg_word = Banks == 1 ? cfg_addr_i : cfg_addr_i >> 4;
  assign cfg_lane = Banks == 1 ? '0 : cfg_addr_i[3:0];

  core_array #(
    .Cores       (Cores),
    .LastCores   (LastCores),
    .Banks       (Banks),
    .Neurons     (Neurons),
    .Weights     (Weights),
    .Phases      (Phases),
    .WeightBits  (WeightBits),
    .CurrentBits (CurrentBits),
    .MembraneBits(MembraneBits),
    .Lapicque    (Lapicque)
  ) u_core_array (
    .clk_i,
    .rst_ni,
    .cfg_weight_we_i(cfg_we_i && cfg_space_i == SpaceWeight),
    .cfg_bias_we_i  (cfg_we_i && cfg_space_i == SpaceBias),
    .cfg_core_i,
    .cfg_weight_i   (WeightWidth'(cfg_word)),
    .cfg_lane_i     (LaneWidth'(cfg_lane)),
    .cfg_phase_i    (PhaseWidth'(cfg_addr_i)),
    .cfg_data_i     (MembraneBits'(cfg_data_i)),
    .threshold_i    (threshold_q),
    .gain_i         (gain_q),
    .decay_i        (decay_q),
    .reset_zero_i   (reset_zero_q),
    .op_clear_i     (op_clear),
    .op_accumulate_i(op_accumulate),
    .op_fire_i      (op_fire),
    .op_first_step_i(op_first_step),
    .op_neuron_i    (op_neuron),
    .op_reached_i   (op_reached),
    .op_lane_i      (op_lane),
    .op_weight_i    (op_weight),
    .op_phase_i     (op_phase),
    .spk_valid_o    (spk_valid),
    .spk_o          (spk)
  );

  if (Banks == 1) begin : gen_spike_packer
    spike_packer #(
      .Channels (OutChannels),
      .Cores    (Cores),
      .Height   (OutHeight),
      .Width    (OutWidth),
      .Pool     (Pool),
      .LineWidth(LineWidth)
    ) u_spike_packer (
      .clk_i,
      .rst_ni,
      .spk_valid_i (spk_valid),
      .spk_i       (spk[0]),
      .flush_i     (flush),
      .line_valid_o(out_line_valid_o),
      .line_o      (out_line_o)
    );
  end else begin : gen_strip_packer
    strip_packer #(
      .Channels (OutChannels),
      .Cores    (Cores),
      .Height   (OutHeight),
      .Width    (OutWidth),
      .Pool     (Pool),
      .Pixels   (Pixels),
      .LineWidth(LineWidth)
    ) u_strip_packer (
      .clk_i,
      .rst_ni,
      .spk_valid_i (spk_valid),
      .spk_i       (spk),
      .flush_i     (flush),
      .line_valid_o(out_line_valid_o),
      .line_o      (out_line_o)
    );
  end

  assign bucket_o = perf;

  perf_counters u_perf_counters (
    .clk_i,
    .rst_ni,
    .perf_i      (perf),
    .done_i      (done_o),
    .bucket_cnt_o
  );

  ////////////////
  // Assertions //
  ////////////////

  if (Cores < 1 || Cores > OutChannels) begin : gen_cores_check
    $error("snn_layer: Cores must be 1 to OutChannels, got %0d", Cores);
  end
  if (WeightBits < 2 || WeightBits > 8) begin : gen_weight_check
    $error("snn_layer: WeightBits must be 2 to 8, got %0d", WeightBits);
  end
  if (MembraneBits < 8 || MembraneBits > 32) begin : gen_membrane_check
    $error("snn_layer: MembraneBits must be 8 to 32, got %0d", MembraneBits);
  end
  if (TimeSteps < 1 || Kernel % 2 == 0 || Padding >= Kernel) begin : gen_shape_check
    $error("snn_layer: TimeSteps must be 1 or more, Kernel odd, Padding below Kernel");
  end

`ifndef SYNTHESIS
  // Weights and constants change only between inferences.
  ConfigOnlyWhenIdle: assert property (@(posedge clk_i) disable iff (!rst_ni)
      cfg_we_i |-> perf == '0);

  // A write names a core, a weight, a phase or a constant that is there.
  ConfigInRange: assert property (@(posedge clk_i) disable iff (!rst_ni)
      cfg_we_i |-> (cfg_space_i == SpaceWeight && 32'(cfg_core_i) < Cores && cfg_word < Weights
                    && 32'(cfg_lane) < Banks)
                   || (cfg_space_i == SpaceBias && 32'(cfg_core_i) < Cores && cfg_addr_i < Phases)
                   || (cfg_space_i == SpaceConstant && cfg_addr_i < 32'd4));

  // A shifted decay shifts by at most the bits behind its point.
  DecayShiftInRange: assert property (@(posedge clk_i) disable iff (!rst_ni)
      start_o && !Lapicque |->
      decay_q[3:0] <= 4'd8 && decay_q[9:6] <= 4'd8 && decay_q[15:12] <= 4'd8);
`endif

endmodule
