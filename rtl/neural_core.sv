// SPDX-License-Identifier: Apache-2.0
//
// A neural core: its weights and biases, and its neurons in one or more banks. A word holds a
// weight for each bank: with nine banks a kernel of one input and one output channel, of which
// every bank gets the weight of the tap that reaches it.
//
// Cost: that of core_array, which drives all cores of a layer stage by stage.

module neural_core #(
  /// Banks, neurons in each of them, and words of Banks weights in this core.
  parameter  int unsigned Banks        = 1,
  parameter  int unsigned Neurons      = 1024,
  parameter  int unsigned Weights      = 72,
  /// Output channels that this core owns, rounded up; one bias each.
  parameter  int unsigned Phases       = 4,
  parameter  int unsigned WeightBits   = 4,
  parameter  int unsigned CurrentBits  = 10,
  parameter  int unsigned MembraneBits = 16,
  /// Lapicque neurons instead of LIF.
  parameter  bit          Lapicque     = 1'b0,
  /// Derived widths.
  localparam int unsigned NeuronWidth  = Neurons > 1 ? $clog2(Neurons) : 1,
  localparam int unsigned WeightWidth  = Weights > 1 ? $clog2(Weights) : 1,
  localparam int unsigned PhaseWidth   = Phases > 1 ? $clog2(Phases) : 1,
  localparam int unsigned LaneWidth    = Banks > 1 ? $clog2(Banks) : 1
) (
  input  logic                              clk_i,

  // Weights, one lane of a word at a time, and biases, while the layer is idle
  input  logic                              cfg_weight_we_i,
  input  logic                              cfg_bias_we_i,
  input  logic        [WeightWidth-1:0]     cfg_weight_i,
  input  logic        [LaneWidth-1:0]       cfg_lane_i,
  input  logic        [PhaseWidth-1:0]      cfg_phase_i,
  input  logic signed [MembraneBits-1:0]    cfg_data_i,

  // Constants of the layer (see snn_layer)
  input  logic signed [MembraneBits-1:0]    threshold_i,
  input  logic        [3:0]                 gain_i,
  input  logic        [17:0]                decay_i,
  input  logic                              reset_zero_i,

  // Stage op: addresses to read
  input  logic                              op_valid_i,
  input  logic                              op_accumulate_i,
  input  logic                              op_fire_i,
  input  logic [Banks-1:0][NeuronWidth-1:0] op_neuron_i,
  input  logic        [WeightWidth-1:0]     op_weight_i,
  input  logic        [PhaseWidth-1:0]      op_phase_i,
  // Stages add, product and sum (see neuron_bank), and the lane whose weight a bank adds
  input  logic                              accumulate_i,
  input  logic                              fire_i,
  input  logic                              first_step_i,
  input  logic [Banks-1:0]                  current_we_i,
  input  logic [Banks-1:0]                  forward_i,
  input  logic [Banks-1:0][NeuronWidth-1:0] neuron_i,
  input  logic [Banks-1:0][LaneWidth-1:0]   lane_i,
  input  logic                              product_valid_i,
  input  logic                              sum_valid_i,
  input  logic        [NeuronWidth-1:0]     sum_neuron_i,

  // Of the neurons in stage sum one cycle before; holds otherwise
  output logic [Banks-1:0]                  spk_o
);

  logic signed [MembraneBits-1:0]         bias_mem [Phases];
  logic signed [MembraneBits-1:0]         bias_q;
  // The word that was read, by lane
  logic        [Banks-1:0][WeightBits-1:0] word_q;

  always_ff @(posedge clk_i) begin
    if (cfg_bias_we_i) bias_mem[cfg_phase_i] <= cfg_data_i;
    if (op_fire_i) bias_q <= bias_mem[op_phase_i];
  end

  for (genvar b = 0; b < Banks; b++) begin : gen_bank
    logic [WeightBits-1:0] weight_mem [Weights];
    logic [WeightBits-1:0] weight;

    always_ff @(posedge clk_i) begin
      if (cfg_weight_we_i && cfg_lane_i == LaneWidth'(b)) begin
        weight_mem[cfg_weight_i] <= WeightBits'(cfg_data_i);
      end
      if (op_accumulate_i) word_q[b] <= weight_mem[op_weight_i];
    end

    if (Banks == 1) begin : gen_only
      assign weight = word_q[0];

      logic unused_lane;
      assign unused_lane = ^lane_i;
    end else begin : gen_lane
      assign weight = word_q[lane_i[b]];
    end

    neuron_bank #(
      .Neurons     (Neurons),
      .WeightBits  (WeightBits),
      .CurrentBits (CurrentBits),
      .MembraneBits(MembraneBits),
      .Lapicque    (Lapicque)
    ) u_neuron_bank (
      .clk_i,
      .threshold_i,
      .gain_i,
      .decay_i,
      .reset_zero_i,
      .op_valid_i,
      .op_fire_i,
      .op_neuron_i (op_neuron_i[b]),
      .weight_i    (weight),
      .bias_i      (bias_q),
      .accumulate_i,
      .fire_i,
      .first_step_i,
      .current_we_i(current_we_i[b]),
      .forward_i   (forward_i[b]),
      .neuron_i    (neuron_i[b]),
      .product_valid_i,
      .sum_valid_i,
      .sum_neuron_i,
      .spk_o       (spk_o[b])
    );
  end

  ////////////////
  // Assertions //
  ////////////////

  if (MembraneBits < WeightBits) begin : gen_width_check
    $error("neural_core: MembraneBits must be at least WeightBits, got %0d", MembraneBits);
  end

endmodule
