// SPDX-License-Identifier: Apache-2.0
//
// Neurons of a core in memories of their own: integrates weights into input currents and fires.
//
//   R[t] = U[t-1] > threshold
//   U[t] = floor(decay U[t-1]) + I[t] 2^gain + bias - threshold R[t]      reset by subtraction
//   S[t] = U[t] > threshold
//
// Reset to zero: where R[t] is set, a leaky integrate-and-fire (LIF) neuron forgets U[t-1], and a
// Lapicque neuron the whole step (U[t] = 0), as in snnTorch 1.0.
//
// The decay of a LIF neuron is a sum of at most three signed powers of two, so it is shifted and
// added. That of a Lapicque neuron is a signed number in 1/65536, so it is multiplied; its input
// gain 1/C is part of the membrane unit. I and U are separate memories; U saturates to
// MembraneBits when it is stored, I has the bits that its fan-in can reach.
//
// Cost: that of core_array, which drives all cores of a layer stage by stage.

module neuron_bank #(
  parameter  int unsigned Neurons      = 1024,
  parameter  int unsigned WeightBits   = 4,
  parameter  int unsigned CurrentBits  = 10,
  parameter  int unsigned MembraneBits = 16,
  /// Lapicque neurons instead of LIF.
  parameter  bit          Lapicque     = 1'b0,
  /// Derived widths.
  localparam int unsigned NeuronWidth  = Neurons > 1 ? $clog2(Neurons) : 1
) (
  input  logic                           clk_i,

  // Constants of the layer (see snn_layer)
  input  logic signed [MembraneBits-1:0] threshold_i,
  input  logic        [3:0]              gain_i,
  input  logic        [17:0]             decay_i,
  input  logic                           reset_zero_i,

  // Stage op: addresses to read
  input  logic                           op_valid_i,
  input  logic                           op_fire_i,
  input  logic        [NeuronWidth-1:0]  op_neuron_i,
  // Stage add: the input current is written, or cleared where it was not accumulated
  input  logic signed [WeightBits-1:0]   weight_i,
  input  logic signed [MembraneBits-1:0] bias_i,
  input  logic                           accumulate_i,
  input  logic                           fire_i,
  input  logic                           first_step_i,
  input  logic                           current_we_i,
  // The last write was to the address that was read
  input  logic                           forward_i,
  input  logic        [NeuronWidth-1:0]  neuron_i,
  // Stage product
  input  logic                           product_valid_i,
  // Stage sum: the membrane is written
  input  logic                           sum_valid_i,
  input  logic        [NeuronWidth-1:0]  sum_neuron_i,

  // Of the neuron in stage sum one cycle before; holds otherwise
  output logic                           spk_o
);

  // Sums at full width
  localparam int unsigned DriveWidth =
      (CurrentBits + 15 > MembraneBits ? CurrentBits + 15 : MembraneBits) + 2;
  localparam int unsigned SumWidth   = DriveWidth + 1;

  logic signed [CurrentBits-1:0]  current_mem [Neurons];
  logic signed [MembraneBits-1:0] mem_mem [Neurons];

  //////////////////
  // Accumulation //
  //////////////////

  // The last written current is forwarded to a read of its address
  logic signed [CurrentBits-1:0]  current_rdata_q, written_q, current, current_next;

  assign current      = forward_i ? written_q : current_rdata_q;
  assign current_next = accumulate_i ? current + CurrentBits'(weight_i) : '0;

  always_ff @(posedge clk_i) begin
    if (op_valid_i) current_rdata_q <= current_mem[op_neuron_i];
    if (current_we_i) begin
      current_mem[neuron_i] <= current_next;
      written_q             <= current_next;
    end
  end

  //////////
  // Fire //
  //////////

  // The membrane before the step, what is added to it, and what is left of it
  logic signed [MembraneBits-1:0] mem_rdata_q, mem_old, mem_new;
  logic signed [DriveWidth-1:0]   drive, drive_q;
  logic signed [MembraneBits:0]   decayed_q;
  logic                           reset, forget_q;

  assign mem_old = first_step_i ? '0 : mem_rdata_q;
  assign reset   = mem_old > threshold_i;
  assign drive   = (DriveWidth'(current) <<< gain_i) + DriveWidth'(bias_i)
                   - (reset && !reset_zero_i ? DriveWidth'(threshold_i) : '0);

  if (Lapicque) begin : gen_lapicque
    // The decay is a signed number in 1/65536
    localparam int unsigned FractionBits = 16;
    localparam int unsigned ProductWidth = MembraneBits + 18;

    logic signed [MembraneBits-1:0] factor_q;
    logic signed [DriveWidth-1:0]   early_drive_q;
    logic                           early_forget_q;
    logic signed [ProductWidth-1:0] product;

    assign product = factor_q * $signed(decay_i);

    always_ff @(posedge clk_i) begin
      if (fire_i) begin
        factor_q       <= mem_old;
        early_drive_q  <= drive;
        early_forget_q <= reset && reset_zero_i;
      end
      if (product_valid_i) begin
        decayed_q <= (MembraneBits + 1)'(product >>> FractionBits);
        drive_q   <= early_drive_q;
        forget_q  <= early_forget_q;
      end
    end
  end else begin : gen_lif
    // The decay is three fields of {enable, negative, shift[3:0]}, the first in the lowest bits
    localparam int unsigned FractionBits = 8;
    localparam int unsigned DecayWidth   = MembraneBits + FractionBits + 2;

    function automatic logic signed [MembraneBits:0] decayed(
        logic signed [MembraneBits-1:0] mem);
      logic signed [DecayWidth-1:0] total;
      total = '0;
      for (int unsigned k = 0; k < 3; k++) begin
        if (decay_i[6*k+5] && decay_i[6*k+4]) begin
          total -= DecayWidth'(mem) <<< (4'(FractionBits) - decay_i[6*k+:4]);
        end else if (decay_i[6*k+5]) begin
          total += DecayWidth'(mem) <<< (4'(FractionBits) - decay_i[6*k+:4]);
        end
      end
      decayed = (MembraneBits + 1)'(total >>> FractionBits);
    endfunction

    assign forget_q = 1'b0;

    always_ff @(posedge clk_i) begin
      if (fire_i) begin
        decayed_q <= reset && reset_zero_i ? '0 : decayed(mem_old);
        drive_q   <= drive;
      end
    end

    logic unused_product_valid;
    assign unused_product_valid = product_valid_i;
  end

  localparam logic signed [MembraneBits-1:0] MemMax = {1'b0, {(MembraneBits - 1) {1'b1}}};
  localparam logic signed [MembraneBits-1:0] MemMin = {1'b1, {(MembraneBits - 1) {1'b0}}};

  function automatic logic signed [MembraneBits-1:0] saturated(logic signed [SumWidth-1:0] sum);
    saturated = MembraneBits'(sum);
    if (sum > SumWidth'(MemMax)) saturated = MemMax;
    if (sum < SumWidth'(MemMin)) saturated = MemMin;
  endfunction

  assign mem_new = forget_q ? '0 : saturated(SumWidth'(decayed_q) + SumWidth'(drive_q));

  always_ff @(posedge clk_i) begin
    if (op_fire_i) mem_rdata_q <= mem_mem[op_neuron_i];
    if (sum_valid_i) begin
      mem_mem[sum_neuron_i] <= mem_new;
      spk_o                 <= mem_new > threshold_i;
    end
  end

  ////////////////
  // Assertions //
  ////////////////

`ifndef SYNTHESIS
  // Memories power up with anything; nothing may rest on zeros that hardware does not have.
  initial begin
    for (int unsigned i = 0; i < Neurons; i++) begin
      current_mem[i] = CurrentBits'($urandom);
      mem_mem[i]     = MembraneBits'($urandom);
    end
  end

  // The sum of the weights never wraps.
  CurrentNeverWraps: assert property (@(posedge clk_i)
      accumulate_i && current_we_i |-> 32'(current) + 32'(weight_i) == 32'(current_next));
`endif

endmodule
