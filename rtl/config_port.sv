// SPDX-License-Identifier: Apache-2.0
//
// Lets configuration into the engine: only to places that are there, only while no inference is
// under way, and it says when a whole network has been written and committed.
//
// Cost: none. A write goes on in the cycle after that of its register.

module config_port #(
  parameter  int unsigned          Layers       = 1,
  /// Writes that a whole network takes.
  parameter  int unsigned          ConfigWrites = 1,
  /// Layer by layer, the first in the lowest bits: register `layer`, and how many addresses the
  /// weights and biases of a core have.
  parameter  logic [32*Layers-1:0] LayerInfo    = '0,
  parameter  logic [32*Layers-1:0] WeightCounts = '0,
  parameter  logic [32*Layers-1:0] BiasCounts   = '0
) (
  input  logic        clk_i,
  input  logic        rst_ni,

  // Place and value of a write, and the cycle of the write; commands
  input  logic [7:0]  layer_i,
  input  logic [1:0]  space_i,
  input  logic [15:0] core_i,
  input  logic [31:0] addr_i,
  input  logic [31:0] data_i,
  input  logic        written_i,
  input  logic        commit_i,
  input  logic        unload_i,
  // Inferences are under way, or may begin at any time
  input  logic        active_i,

  // The write to the engine, and a layer that is there
  output logic        we_o,
  output logic [7:0]  layer_o,

  // Writes that were accepted since unload; the network is whole and committed
  output logic [31:0] cnt_o,
  output logic        configured_o,
  // A write while active, to what is not there; a commit of less than a network
  output logic        busy_o,
  output logic        range_o,
  output logic        incomplete_o
);

  // Spaces of the configuration (see snn_layer)
  localparam logic [1:0] SpaceWeight = 2'd0, SpaceBias = 2'd1, SpaceConstant = 2'd2;

  logic        layer_exists, core_exists, decay_fits, lapicque, in_range, complete;
  logic [15:0] cores;
  logic [31:0] weights, biases;

  assign layer_exists = 32'(layer_i) < Layers;
  assign layer_o      = layer_exists ? layer_i : '0;
  assign cores        = LayerInfo[32*layer_o +: 16];
  assign lapicque     = LayerInfo[32*layer_o + 30];
  assign weights      = WeightCounts[32*layer_o +: 32];
  assign biases       = BiasCounts[32*layer_o +: 32];
  assign core_exists  = core_i < cores;
  // The shifts of a LIF neuron's decay reach the bits behind its point, no further
  assign decay_fits   = lapicque || addr_i != 32'd2
      || (data_i[3:0] <= 4'd8 && data_i[9:6] <= 4'd8 && data_i[15:12] <= 4'd8);

  always_comb begin
    unique case (space_i)
      SpaceWeight:   in_range = layer_exists && core_exists && addr_i < weights;
      SpaceBias:     in_range = layer_exists && core_exists && addr_i < biases;
      SpaceConstant: in_range = layer_exists && addr_i < 32'd4 && decay_fits;
      default:       in_range = 1'b0;
    endcase
  end

  assign we_o         = written_i && in_range && !active_i;
  assign busy_o       = written_i && active_i;
  assign range_o      = written_i && !active_i && !in_range;
  assign complete     = cnt_o >= ConfigWrites;
  assign incomplete_o = commit_i && !complete;

  // Values that are too wide lose their upper bits in the engine
  logic unused_data;
  assign unused_data = ^data_i;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      cnt_o        <= '0;
      configured_o <= 1'b0;
    end else if (unload_i) begin
      cnt_o        <= '0;
      configured_o <= 1'b0;
    end else if (we_o) begin
      cnt_o        <= cnt_o + 32'(cnt_o != '1);
      configured_o <= 1'b0;
    end else if (commit_i) begin
      configured_o <= complete;
    end
  end

  ////////////////
  // Assertions //
  ////////////////

`ifndef SYNTHESIS
  // A write goes on, or is refused for one reason.
  WriteHasOneFate: assert property (@(posedge clk_i) disable iff (!rst_ni)
      $onehot0({we_o, busy_o, range_o}) && (written_i == |{we_o, busy_o, range_o}));

  // A network is committed only when it is whole, and only until it changes.
  ConfiguredOnlyWhenWhole: assert property (@(posedge clk_i) disable iff (!rst_ni)
      configured_o |-> complete);
  ConfiguredUntilChanged: assert property (@(posedge clk_i) disable iff (!rst_ni)
      we_o || unload_i |=> !configured_o);
`endif

endmodule
