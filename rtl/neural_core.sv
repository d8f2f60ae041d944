// SPDX-License-Identifier: Apache-2.0
//
// Integrates weights into input currents and fires leaky integrate-and-fire neurons.
//
//   R[t] = U[t-1] > threshold
//   U[t] = floor(decay U[t-1]) + I[t] 2^gain + bias - threshold R[t]
//   S[t] = U[t] > threshold
//
// The decay is a sum of at most three signed powers of two. I and U are separate memories; U
// saturates to MembraneBits when it is stored, I has the bits that its fan-in can reach.
//
// Cost: one operation per cycle without exception. An accumulation is in memory two cycles after
// its operation (a read of the same address in between is forwarded); the spike of a fire
// operation leaves three cycles after it.

module neural_core #(
  /// Neurons and weights in this core.
  parameter  int unsigned Neurons       = 1024,
  parameter  int unsigned Weights       = 72,
  /// Output channels that this core owns, rounded up; one bias each.
  parameter  int unsigned Phases        = 4,
  /// This core has no channel in the last phase.
  parameter  bit          IdleLastPhase = 1'b0,
  parameter  int unsigned WeightBits    = 4,
  parameter  int unsigned CurrentBits   = 10,
  parameter  int unsigned MembraneBits  = 16,
  /// Derived widths.
  localparam int unsigned NeuronWidth   = Neurons > 1 ? $clog2(Neurons) : 1,
  localparam int unsigned WeightWidth   = Weights > 1 ? $clog2(Weights) : 1,
  localparam int unsigned PhaseWidth    = Phases > 1 ? $clog2(Phases) : 1
) (
  input  logic                           clk_i,
  input  logic                           rst_ni,

  // Weights and biases, while the layer is idle
  input  logic                           cfg_weight_we_i,
  input  logic                           cfg_bias_we_i,
  input  logic        [WeightWidth-1:0]  cfg_weight_i,
  input  logic        [PhaseWidth-1:0]   cfg_phase_i,
  input  logic signed [MembraneBits-1:0] cfg_data_i,

  // Constants of the layer (see snn_layer)
  input  logic signed [MembraneBits-1:0] threshold_i,
  input  logic        [3:0]              gain_i,
  input  logic        [2:0]              decay_enable_i,
  input  logic        [2:0]              decay_negative_i,
  input  logic        [2:0][3:0]         decay_shift_i,

  // Operation (see event_control)
  input  logic                           op_clear_i,
  input  logic                           op_accumulate_i,
  input  logic                           op_fire_i,
  input  logic                           op_first_step_i,
  input  logic        [NeuronWidth-1:0]  op_neuron_i,
  input  logic        [WeightWidth-1:0]  op_weight_i,
  input  logic        [PhaseWidth-1:0]   op_phase_i,

  output logic                           spk_o
);

  // Bits behind the binary point of the decay, and the sums at full width
  localparam int unsigned FractionBits = 8;
  localparam int unsigned DecayWidth   = MembraneBits + FractionBits + 2;
  localparam int unsigned DriveWidth   =
      (CurrentBits + 15 > MembraneBits ? CurrentBits + 15 : MembraneBits) + 2;
  localparam int unsigned SumWidth     = DriveWidth + 1;

  logic signed [WeightBits-1:0]   weight_mem [Weights];
  logic signed [MembraneBits-1:0] bias_mem [Phases];
  logic signed [CurrentBits-1:0]  current_mem [Neurons];
  logic signed [MembraneBits-1:0] mem_mem [Neurons];

  // Stage 1: what the operation asked for
  logic                           owned, accumulate_q, fire_q, clear_q;
  logic        [NeuronWidth-1:0]  neuron_q;
  logic signed [WeightBits-1:0]   weight_q;
  logic signed [MembraneBits-1:0] bias_q;
  logic signed [CurrentBits-1:0]  current_rdata_q, current, current_next;
  logic signed [MembraneBits-1:0] mem_rdata_q, mem_old;
  logic                           reset;
  logic                           current_we;

  assign owned = !(IdleLastPhase && op_phase_i == PhaseWidth'(Phases - 1));

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      accumulate_q <= 1'b0;
      fire_q       <= 1'b0;
      clear_q      <= 1'b0;
    end else begin
      accumulate_q <= op_accumulate_i && owned;
      fire_q       <= op_fire_i && owned;
      clear_q      <= op_clear_i;
    end
  end

  always_ff @(posedge clk_i) begin
    if (cfg_weight_we_i) weight_mem[cfg_weight_i] <= WeightBits'(cfg_data_i);
    weight_q <= weight_mem[op_weight_i];
  end

  always_ff @(posedge clk_i) begin
    if (cfg_bias_we_i) bias_mem[cfg_phase_i] <= cfg_data_i;
    bias_q <= bias_mem[op_phase_i];
  end

  // Input current: read, then written one cycle later; the last write is forwarded
  logic                          written_q;
  logic        [NeuronWidth-1:0] written_neuron_q;
  logic signed [CurrentBits-1:0] written_data_q;

  assign current_we   = accumulate_q || fire_q || clear_q;
  assign current      = written_q && written_neuron_q == neuron_q ? written_data_q
                                                                  : current_rdata_q;
  assign current_next = accumulate_q ? current + CurrentBits'(weight_q) : '0;

  always_ff @(posedge clk_i) begin
    neuron_q         <= op_neuron_i;
    current_rdata_q  <= current_mem[op_neuron_i];
    if (current_we) current_mem[neuron_q] <= current_next;
    written_neuron_q <= neuron_q;
    written_data_q   <= current_next;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) written_q <= 1'b0;
    else         written_q <= current_we;
  end

  // Stage 1 of fire: decay, and what is added to it
  logic signed [MembraneBits:0]   decayed_q;
  logic signed [DriveWidth-1:0]   drive_q;
  logic                           sum_valid_q;
  logic        [NeuronWidth-1:0]  sum_neuron_q;

  assign mem_old = op_first_step_i ? '0 : mem_rdata_q;
  assign reset   = mem_old > threshold_i;

  function automatic logic signed [MembraneBits:0] decayed(logic signed [MembraneBits-1:0] mem);
    logic signed [DecayWidth-1:0] total;
    total = '0;
    for (int unsigned k = 0; k < 3; k++) begin
      if (decay_enable_i[k] && decay_negative_i[k]) begin
        total -= DecayWidth'(mem) <<< (4'(FractionBits) - decay_shift_i[k]);
      end else if (decay_enable_i[k]) begin
        total += DecayWidth'(mem) <<< (4'(FractionBits) - decay_shift_i[k]);
      end
    end
    decayed = (MembraneBits + 1)'(total >>> FractionBits);
  endfunction

  always_ff @(posedge clk_i) begin
    if (fire_q) begin
      decayed_q    <= decayed(mem_old);
      drive_q      <= (DriveWidth'(current) <<< gain_i) + DriveWidth'(bias_q)
                      - (reset ? DriveWidth'(threshold_i) : '0);
      sum_neuron_q <= neuron_q;
    end
  end

  // Stage 2 of fire: sum, saturation, spike
  localparam logic signed [MembraneBits-1:0] MemMax = {1'b0, {(MembraneBits - 1) {1'b1}}};
  localparam logic signed [MembraneBits-1:0] MemMin = {1'b1, {(MembraneBits - 1) {1'b0}}};

  function automatic logic signed [MembraneBits-1:0] saturated(logic signed [SumWidth-1:0] sum);
    saturated = MembraneBits'(sum);
    if (sum > SumWidth'(MemMax)) saturated = MemMax;
    if (sum < SumWidth'(MemMin)) saturated = MemMin;
  endfunction

  logic signed [MembraneBits-1:0] mem_new;

  assign mem_new = saturated(SumWidth'(decayed_q) + SumWidth'(drive_q));

  always_ff @(posedge clk_i) begin
    if (op_fire_i) mem_rdata_q <= mem_mem[op_neuron_i];
    if (sum_valid_q) mem_mem[sum_neuron_q] <= mem_new;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      sum_valid_q <= 1'b0;
      spk_o       <= 1'b0;
    end else begin
      sum_valid_q <= fire_q;
      spk_o       <= sum_valid_q && mem_new > threshold_i;
    end
  end

  ////////////////
  // Assertions //
  ////////////////

  if (MembraneBits < WeightBits) begin : gen_width_check
    $error("neural_core: MembraneBits must be at least WeightBits, got %0d", MembraneBits);
  end

`ifndef SYNTHESIS
  // Memories power up with anything; nothing may rest on zeros that hardware does not have.
  initial begin
    for (int unsigned i = 0; i < Neurons; i++) begin
      current_mem[i] = CurrentBits'($urandom);
      mem_mem[i]     = MembraneBits'($urandom);
    end
  end

  // The core does one thing at a time.
  OneOperation: assert property (@(posedge clk_i) disable iff (!rst_ni)
      $onehot0({op_clear_i, op_accumulate_i, op_fire_i}));

  // The sum of the weights never wraps.
  CurrentNeverWraps: assert property (@(posedge clk_i) disable iff (!rst_ni)
      accumulate_q |-> 32'(current) + 32'(weight_q) == 32'(current_next));
`endif

endmodule
