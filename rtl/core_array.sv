// SPDX-License-Identifier: Apache-2.0
//
// The neural cores of a layer. They work in lockstep, so the pipeline of control and addresses
// stands here, once for all of them; neuron_bank says what is done in each of its stages.
//
//   stage    what the cores do
//   op       read weight, bias, input current and membrane
//   add      accumulate, or decay the membrane and sum what is added to it (LIF)
//   product  multiply the membrane by its decay (Lapicque only)
//   sum      add, saturate, store the membrane, compare with the threshold
//
// Neurons are interleaved in banks that work at once. An accumulation has an address in each bank,
// and leaves those as they are that it does not reach; any other operation has one for all banks.
//
// Cost: one operation per cycle without exception. An accumulation is in memory two cycles after
// its operation (a read of the same address in between is forwarded); the spikes of a fire
// operation leave with spk_valid_o three cycles after it, four for Lapicque neurons.
//
// A neuron may fire again three (Lapicque: four) cycles after it fired, no sooner. Weights and
// constants hold until its spike has left. What is accumulated after a fire operation belongs to
// the next step.

module core_array #(
  parameter  int unsigned Cores        = 4,
  /// Cores that own a channel in the last phase.
  parameter  int unsigned LastCores    = Cores,
  /// Banks of each core.
  parameter  int unsigned Banks        = 1,
  /// Neurons in each bank, and words of Banks weights in each core.
  parameter  int unsigned Neurons      = 1024,
  parameter  int unsigned Weights      = 72,
  /// Output channels that a core owns, rounded up; one bias each.
  parameter  int unsigned Phases       = 4,
  parameter  int unsigned WeightBits   = 4,
  /// Bits of an input current: what the fan-in can reach.
  parameter  int unsigned CurrentBits  = 10,
  parameter  int unsigned MembraneBits = 16,
  /// Lapicque neurons instead of leaky integrate-and-fire (LIF) ones.
  parameter  bit          Lapicque     = 1'b0,
  /// Derived widths.
  localparam int unsigned NeuronWidth  = Neurons > 1 ? $clog2(Neurons) : 1,
  localparam int unsigned WeightWidth  = Weights > 1 ? $clog2(Weights) : 1,
  localparam int unsigned PhaseWidth   = Phases > 1 ? $clog2(Phases) : 1,
  localparam int unsigned LaneWidth    = Banks > 1 ? $clog2(Banks) : 1
) (
  input  logic                           clk_i,
  input  logic                           rst_ni,

  // Weights and biases of one core, while the layer is idle
  input  logic                           cfg_weight_we_i,
  input  logic                           cfg_bias_we_i,
  input  logic        [15:0]             cfg_core_i,
  input  logic        [WeightWidth-1:0]  cfg_weight_i,
  input  logic        [LaneWidth-1:0]    cfg_lane_i,
  input  logic        [PhaseWidth-1:0]   cfg_phase_i,
  input  logic signed [MembraneBits-1:0] cfg_data_i,

  // Constants of the layer (see snn_layer)
  input  logic signed [MembraneBits-1:0] threshold_i,
  input  logic        [3:0]              gain_i,
  input  logic        [17:0]             decay_i,
  input  logic                           reset_zero_i,

  // Operation: at most one kind per cycle (see event_control)
  input  logic                           op_clear_i,
  input  logic                           op_accumulate_i,
  input  logic                           op_fire_i,
  input  logic                           op_first_step_i,
  input  logic [Banks-1:0][NeuronWidth-1:0] op_neuron_i,
  input  logic [Banks-1:0]                  op_reached_i,
  input  logic [Banks-1:0][LaneWidth-1:0]   op_lane_i,
  input  logic        [WeightWidth-1:0]  op_weight_i,
  input  logic        [PhaseWidth-1:0]   op_phase_i,

  // Spikes of the neurons that a fire operation named, one per bank and core
  output logic                           spk_valid_o,
  output logic [Banks-1:0][Cores-1:0]    spk_o
);

  // Cores that own a channel in the last phase
  localparam logic [Cores-1:0] OwnersInLastPhase = {Cores{1'b1}} >> (Cores - LastCores);

  //////////////
  // Pipeline //
  //////////////

  logic                   op_valid, op_last_phase;
  // Stage add
  logic                   accumulate_q, fire_q, clear_q, first_step_q, last_phase_q;
  logic [Banks-1:0][NeuronWidth-1:0] neuron_q;
  logic [Banks-1:0][LaneWidth-1:0]   lane_q;
  logic [Banks-1:0]                  reached_q;
  // The input current of a bank that is written, and the one written before
  logic [Banks-1:0]                  current_we, written_q, forward;
  logic [Banks-1:0][NeuronWidth-1:0] written_neuron_q;
  // Stage product
  logic                   product_valid_q, product_last_phase_q;
  logic [NeuronWidth-1:0] product_neuron_q;
  // Stage sum, and the spikes after it
  logic                   sum_valid_q, sum_last_phase_q, spk_valid_q, spk_last_phase_q;
  logic [NeuronWidth-1:0] sum_neuron_q;
  logic [Cores-1:0][Banks-1:0] spk;

  assign op_valid      = op_clear_i || op_accumulate_i || op_fire_i;
  assign op_last_phase = op_phase_i == PhaseWidth'(Phases - 1);

  for (genvar b = 0; b < Banks; b++) begin : gen_forward
    assign current_we[b] = (accumulate_q && reached_q[b]) || fire_q || clear_q;
    assign forward[b]    = written_q[b] && written_neuron_q[b] == neuron_q[b];
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      clear_q         <= 1'b0;
      accumulate_q    <= 1'b0;
      fire_q          <= 1'b0;
      written_q       <= '0;
      product_valid_q <= 1'b0;
      sum_valid_q     <= 1'b0;
      spk_valid_q     <= 1'b0;
    end else begin
      clear_q         <= op_clear_i;
      accumulate_q    <= op_accumulate_i;
      fire_q          <= op_fire_i;
      written_q       <= current_we;
      product_valid_q <= Lapicque && fire_q;
      sum_valid_q     <= Lapicque ? product_valid_q : fire_q;
      spk_valid_q     <= sum_valid_q;
    end
  end

  always_ff @(posedge clk_i) begin
    neuron_q             <= op_neuron_i;
    lane_q               <= op_lane_i;
    reached_q            <= op_reached_i;
    first_step_q         <= op_first_step_i;
    last_phase_q         <= op_last_phase;
    written_neuron_q     <= neuron_q;
    product_neuron_q     <= neuron_q[0];
    product_last_phase_q <= last_phase_q;
    sum_neuron_q         <= Lapicque ? product_neuron_q : neuron_q[0];
    sum_last_phase_q     <= Lapicque ? product_last_phase_q : last_phase_q;
    spk_last_phase_q     <= sum_last_phase_q;
  end

  ///////////
  // Cores //
  ///////////

  for (genvar j = 0; j < Cores; j++) begin : gen_core
    logic cfg_hit;

    assign cfg_hit = cfg_core_i == 16'(j);

    neural_core #(
      .Banks       (Banks),
      .Neurons     (Neurons),
      .Weights     (Weights),
      .Phases      (Phases),
      .WeightBits  (WeightBits),
      .CurrentBits (CurrentBits),
      .MembraneBits(MembraneBits),
      .Lapicque    (Lapicque)
    ) u_neural_core (
      .clk_i,
      .cfg_weight_we_i(cfg_weight_we_i && cfg_hit),
      .cfg_bias_we_i  (cfg_bias_we_i && cfg_hit),
      .cfg_weight_i,
      .cfg_lane_i,
      .cfg_phase_i,
      .cfg_data_i,
      .threshold_i,
      .gain_i,
      .decay_i,
      .reset_zero_i,
      .op_valid_i     (op_valid),
      .op_accumulate_i,
      .op_fire_i,
      .op_neuron_i,
      .op_weight_i,
      .op_phase_i,
      .accumulate_i   (accumulate_q),
      .fire_i         (fire_q),
      .first_step_i   (first_step_q),
      .current_we_i   (current_we),
      .forward_i      (forward),
      .neuron_i       (neuron_q),
      .lane_i         (lane_q),
      .product_valid_i(product_valid_q),
      .sum_valid_i    (sum_valid_q),
      .sum_neuron_i   (sum_neuron_q),
      .spk_o          (spk[j])
    );
  end

  assign spk_valid_o = spk_valid_q;

  for (genvar b = 0; b < Banks; b++) begin : gen_bank
    logic [Cores-1:0] of_bank;

    for (genvar j = 0; j < Cores; j++) begin : gen_spk
      assign of_bank[j] = spk[j][b];
    end
    assign spk_o[b] = spk_last_phase_q ? of_bank & OwnersInLastPhase : of_bank;
  end

  ////////////////
  // Assertions //
  ////////////////

  if (LastCores < 1 || LastCores > Cores) begin : gen_last_cores_check
    $error("core_array: LastCores must be 1 to Cores, got %0d", LastCores);
  end

`ifndef SYNTHESIS
  // The cores do one thing at a time.
  OneOperation: assert property (@(posedge clk_i) disable iff (!rst_ni)
      $onehot0({op_clear_i, op_accumulate_i, op_fire_i}));

  // No operation leaves the memories.
  for (genvar b = 0; b < Banks; b++) begin : gen_range
    NeuronInRange: assert property (@(posedge clk_i) disable iff (!rst_ni)
        op_valid && (op_reached_i[b] || !op_accumulate_i) |-> 32'(op_neuron_i[b]) < Neurons);
  end

  // All banks clear and fire at one address.
  OneAddressOfAllBanks: assert property (@(posedge clk_i) disable iff (!rst_ni)
      op_clear_i || op_fire_i |-> op_neuron_i == {Banks{op_neuron_i[0]}});
  WeightInRange: assert property (@(posedge clk_i) disable iff (!rst_ni)
      op_accumulate_i |-> 32'(op_weight_i) < Weights);
  PhaseInRange: assert property (@(posedge clk_i) disable iff (!rst_ni)
      op_fire_i |-> 32'(op_phase_i) < Phases);

  // A neuron fires again only when its membrane of the step before is stored.
  FireOnlyWhenStored: assert property (@(posedge clk_i) disable iff (!rst_ni)
      op_fire_i |-> !(fire_q && neuron_q[0] == op_neuron_i[0])
                    && !(product_valid_q && product_neuron_q == op_neuron_i[0])
                    && !(sum_valid_q && sum_neuron_q == op_neuron_i[0]));

  // Weights, biases and constants change only while no operation is under way.
  ConfigOnlyWhenDrained: assert property (@(posedge clk_i) disable iff (!rst_ni)
      cfg_weight_we_i || cfg_bias_we_i |->
      !op_accumulate_i && !op_fire_i && !fire_q && !product_valid_q && !sum_valid_q);
`endif

endmodule
