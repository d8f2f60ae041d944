// SPDX-License-Identifier: Apache-2.0
//
// The registers of registers.rdl. Written by `make registers`; edit that.
//
// A write that no register takes, or of fewer than four bytes, is refused, as is a read of what is
// not there. Outputs named _written_o, and those of commands, are high for one cycle, in which the
// new value stands.
//
// Cost: none. A write shows in the cycle after it, a read is answered in its own cycle.

module control_registers (
  input  logic        clk_i,
  input  logic        rst_ni,

  // Write of one register
  input  logic        write_valid_i,
  input  logic [6:0]  write_addr_i,
  input  logic [31:0] write_data_i,
  input  logic [3:0]  write_strb_i,
  output logic        write_refused_o,

  // Read of one register
  input  logic [6:0]  read_addr_i,
  output logic [31:0] read_data_o,
  output logic        read_refused_o,

  // network: Sizes of the network
  input  logic [7:0]  network_layers_i,
  input  logic [15:0] network_time_steps_i,
  input  logic [7:0]  network_encoder_width_i,

  // input_words: Input of an inference
  input  logic [31:0] input_words_i,

  // output_words: Output of an inference
  input  logic [31:0] output_words_i,

  // config_writes: Configuration of a network
  input  logic [31:0] config_writes_i,

  // control: Commands
  output logic        control_start_o,
  output logic        control_commit_o,
  output logic        control_unload_o,
  output logic        control_reset_o,

  // mode: Modes
  output logic        mode_continuous_o,
  output logic        mode_pipelined_o,
  output logic        mode_written_o,

  // status: Status
  input  logic        status_idle_i,
  input  logic        status_busy_i,
  input  logic        status_done_i,
  input  logic        status_configured_i,
  input  logic        status_input_ready_i,
  input  logic        status_input_partial_i,
  input  logic        status_output_waiting_i,
  input  logic        status_error_i,
  input  logic [1:0]  status_inputs_i,
  input  logic [1:0]  status_results_i,

  // error: Errors
  input  logic        error_start_busy_set_i,
  output logic        error_start_busy_o,
  input  logic        error_start_unconfigured_set_i,
  output logic        error_start_unconfigured_o,
  input  logic        error_start_no_input_set_i,
  output logic        error_start_no_input_o,
  input  logic        error_config_busy_set_i,
  output logic        error_config_busy_o,
  input  logic        error_config_range_set_i,
  output logic        error_config_range_o,
  input  logic        error_config_incomplete_set_i,
  output logic        error_config_incomplete_o,
  input  logic        error_input_short_set_i,
  output logic        error_input_short_o,
  input  logic        error_input_long_set_i,
  output logic        error_input_long_o,
  input  logic        error_input_stopped_set_i,
  output logic        error_input_stopped_o,
  input  logic        error_input_padding_set_i,
  output logic        error_input_padding_o,
  input  logic        error_bus_set_i,
  output logic        error_bus_o,

  // interrupt_enable: Interrupts that reach the pin
  output logic        interrupt_enable_done_o,
  output logic        interrupt_enable_error_o,

  // interrupt_status: Interrupts
  input  logic        interrupt_status_done_set_i,
  output logic        interrupt_status_done_o,
  input  logic        interrupt_status_error_set_i,
  output logic        interrupt_status_error_o,

  // input_timeout: Patience with the input stream
  output logic [31:0] input_timeout_o,

  // config_select: Where configuration goes
  output logic [7:0]  config_select_layer_o,
  output logic [1:0]  config_select_space_o,
  output logic [15:0] config_select_core_o,

  // config_address: Address of the next write
  input  logic        config_address_incr_i,
  output logic [31:0] config_address_o,

  // config_data: Configuration
  output logic [31:0] config_data_o,
  output logic        config_data_written_o,

  // config_count: Configuration so far
  input  logic [31:0] config_count_i,

  // inferences: Inferences
  input  logic [31:0] inferences_i,

  // latency: Latency
  input  logic [31:0] latency_i,

  // interval: Initiation interval
  input  logic [31:0] interval_i,

  // select: What `layer` and `cycles` show
  output logic [7:0]  select_layer_o,
  output logic [1:0]  select_bucket_o,
  output logic        select_written_o,

  // layer: Hardware of the selected layer
  input  logic [15:0] layer_cores_i,
  input  logic [5:0]  layer_membrane_bits_i,
  input  logic [3:0]  layer_weight_bits_i,
  input  logic [3:0]  layer_taps_per_cycle_i,
  input  logic        layer_lapicque_i,

  // cycles: Cycles of the selected layer
  input  logic [31:0] cycles_i
);

  ///////////
  // Write //
  ///////////

  // Registers that take this write
  logic control_we, mode_we, error_we, interrupt_enable_we, interrupt_status_we, input_timeout_we,
        config_select_we, config_address_we, config_data_we, select_we;
  logic whole;

  assign whole = write_valid_i && write_strb_i == '1;
  assign control_we = whole && write_addr_i == 7'h20;
  assign mode_we = whole && write_addr_i == 7'h24;
  assign error_we = whole && write_addr_i == 7'h2C;
  assign interrupt_enable_we = whole && write_addr_i == 7'h30;
  assign interrupt_status_we = whole && write_addr_i == 7'h34;
  assign input_timeout_we = whole && write_addr_i == 7'h38;
  assign config_select_we = whole && write_addr_i == 7'h40;
  assign config_address_we = whole && write_addr_i == 7'h44;
  assign config_data_we = whole && write_addr_i == 7'h48;
  assign select_we = whole && write_addr_i == 7'h60;
  assign write_refused_o = !(control_we || mode_we || error_we || interrupt_enable_we ||
      interrupt_status_we || input_timeout_we || config_select_we || config_address_we ||
      config_data_we || select_we);

  // control
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      control_start_o <= 1'd0;
      control_commit_o <= 1'd0;
      control_unload_o <= 1'd0;
      control_reset_o <= 1'd0;
    end else begin
      control_start_o <= control_we && write_data_i[0];
      control_commit_o <= control_we && write_data_i[1];
      control_unload_o <= control_we && write_data_i[2];
      control_reset_o <= control_we && write_data_i[3];
    end
  end

  // mode
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      mode_continuous_o <= 1'd0;
      mode_pipelined_o <= 1'd0;
      mode_written_o <= 1'b0;
    end else begin
      if (mode_we) mode_continuous_o <= write_data_i[0];
      if (mode_we) mode_pipelined_o <= write_data_i[1];
      mode_written_o <= mode_we;
    end
  end

  // error
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      error_start_busy_o <= 1'd0;
      error_start_unconfigured_o <= 1'd0;
      error_start_no_input_o <= 1'd0;
      error_config_busy_o <= 1'd0;
      error_config_range_o <= 1'd0;
      error_config_incomplete_o <= 1'd0;
      error_input_short_o <= 1'd0;
      error_input_long_o <= 1'd0;
      error_input_stopped_o <= 1'd0;
      error_input_padding_o <= 1'd0;
      error_bus_o <= 1'd0;
    end else begin
      error_start_busy_o <= error_start_busy_set_i
          || (error_start_busy_o && !(error_we && write_data_i[0]));
      error_start_unconfigured_o <= error_start_unconfigured_set_i
          || (error_start_unconfigured_o && !(error_we && write_data_i[1]));
      error_start_no_input_o <= error_start_no_input_set_i
          || (error_start_no_input_o && !(error_we && write_data_i[2]));
      error_config_busy_o <= error_config_busy_set_i
          || (error_config_busy_o && !(error_we && write_data_i[3]));
      error_config_range_o <= error_config_range_set_i
          || (error_config_range_o && !(error_we && write_data_i[4]));
      error_config_incomplete_o <= error_config_incomplete_set_i
          || (error_config_incomplete_o && !(error_we && write_data_i[5]));
      error_input_short_o <= error_input_short_set_i
          || (error_input_short_o && !(error_we && write_data_i[6]));
      error_input_long_o <= error_input_long_set_i
          || (error_input_long_o && !(error_we && write_data_i[7]));
      error_input_stopped_o <= error_input_stopped_set_i
          || (error_input_stopped_o && !(error_we && write_data_i[8]));
      error_input_padding_o <= error_input_padding_set_i
          || (error_input_padding_o && !(error_we && write_data_i[9]));
      error_bus_o <= error_bus_set_i
          || (error_bus_o && !(error_we && write_data_i[10]));
    end
  end

  // interrupt_enable
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      interrupt_enable_done_o <= 1'd0;
      interrupt_enable_error_o <= 1'd0;
    end else begin
      if (interrupt_enable_we) interrupt_enable_done_o <= write_data_i[0];
      if (interrupt_enable_we) interrupt_enable_error_o <= write_data_i[1];
    end
  end

  // interrupt_status
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      interrupt_status_done_o <= 1'd0;
      interrupt_status_error_o <= 1'd0;
    end else begin
      interrupt_status_done_o <= interrupt_status_done_set_i
          || (interrupt_status_done_o && !(interrupt_status_we && write_data_i[0]));
      interrupt_status_error_o <= interrupt_status_error_set_i
          || (interrupt_status_error_o && !(interrupt_status_we && write_data_i[1]));
    end
  end

  // input_timeout
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      input_timeout_o <= 32'h100000;
    end else begin
      if (input_timeout_we) input_timeout_o <= write_data_i;
    end
  end

  // config_select
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      config_select_layer_o <= 8'd0;
      config_select_space_o <= 2'd0;
      config_select_core_o <= 16'd0;
    end else begin
      if (config_select_we) config_select_layer_o <= write_data_i[7:0];
      if (config_select_we) config_select_space_o <= write_data_i[9:8];
      if (config_select_we) config_select_core_o <= write_data_i[31:16];
    end
  end

  // config_address
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      config_address_o <= 32'd0;
    end else begin
      if (config_address_we) config_address_o <= write_data_i;
      else if (config_address_incr_i) config_address_o <= config_address_o + 32'd1;
    end
  end

  // config_data
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      config_data_o <= 32'd0;
      config_data_written_o <= 1'b0;
    end else begin
      if (config_data_we) config_data_o <= write_data_i;
      config_data_written_o <= config_data_we;
    end
  end

  // select
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      select_layer_o <= 8'd0;
      select_bucket_o <= 2'd0;
      select_written_o <= 1'b0;
    end else begin
      if (select_we) select_layer_o <= write_data_i[7:0];
      if (select_we) select_bucket_o <= write_data_i[9:8];
      select_written_o <= select_we;
    end
  end

  //////////
  // Read //
  //////////

  always_comb begin
    read_data_o    = '0;
    read_refused_o = 1'b0;

    unique case (read_addr_i)
      // id
      7'h00: read_data_o = 32'h53504B4D;
      // version
      7'h04: read_data_o[31:16] = 16'h1;
      // network
      7'h08: begin
        read_data_o[7:0] = network_layers_i;
        read_data_o[23:8] = network_time_steps_i;
        read_data_o[31:24] = network_encoder_width_i;
      end
      // input_words
      7'h0C: read_data_o = input_words_i;
      // output_words
      7'h10: read_data_o = output_words_i;
      // config_writes
      7'h14: read_data_o = config_writes_i;
      // control
      7'h20: read_data_o = '0;
      // mode
      7'h24: begin
        read_data_o[0] = mode_continuous_o;
        read_data_o[1] = mode_pipelined_o;
      end
      // status
      7'h28: begin
        read_data_o[0] = status_idle_i;
        read_data_o[1] = status_busy_i;
        read_data_o[2] = status_done_i;
        read_data_o[3] = status_configured_i;
        read_data_o[4] = status_input_ready_i;
        read_data_o[5] = status_input_partial_i;
        read_data_o[6] = status_output_waiting_i;
        read_data_o[7] = status_error_i;
        read_data_o[9:8] = status_inputs_i;
        read_data_o[11:10] = status_results_i;
      end
      // error
      7'h2C: begin
        read_data_o[0] = error_start_busy_o;
        read_data_o[1] = error_start_unconfigured_o;
        read_data_o[2] = error_start_no_input_o;
        read_data_o[3] = error_config_busy_o;
        read_data_o[4] = error_config_range_o;
        read_data_o[5] = error_config_incomplete_o;
        read_data_o[6] = error_input_short_o;
        read_data_o[7] = error_input_long_o;
        read_data_o[8] = error_input_stopped_o;
        read_data_o[9] = error_input_padding_o;
        read_data_o[10] = error_bus_o;
      end
      // interrupt_enable
      7'h30: begin
        read_data_o[0] = interrupt_enable_done_o;
        read_data_o[1] = interrupt_enable_error_o;
      end
      // interrupt_status
      7'h34: begin
        read_data_o[0] = interrupt_status_done_o;
        read_data_o[1] = interrupt_status_error_o;
      end
      // input_timeout
      7'h38: read_data_o = input_timeout_o;
      // config_select
      7'h40: begin
        read_data_o[7:0] = config_select_layer_o;
        read_data_o[9:8] = config_select_space_o;
        read_data_o[31:16] = config_select_core_o;
      end
      // config_address
      7'h44: read_data_o = config_address_o;
      // config_data
      7'h48: read_data_o = config_data_o;
      // config_count
      7'h4C: read_data_o = config_count_i;
      // inferences
      7'h50: read_data_o = inferences_i;
      // latency
      7'h54: read_data_o = latency_i;
      // interval
      7'h58: read_data_o = interval_i;
      // select
      7'h60: begin
        read_data_o[7:0] = select_layer_o;
        read_data_o[9:8] = select_bucket_o;
      end
      // layer
      7'h64: begin
        read_data_o[15:0] = layer_cores_i;
        read_data_o[21:16] = layer_membrane_bits_i;
        read_data_o[25:22] = layer_weight_bits_i;
        read_data_o[29:26] = layer_taps_per_cycle_i;
        read_data_o[30] = layer_lapicque_i;
      end
      // cycles
      7'h68: read_data_o = cycles_i;
      default: read_refused_o = 1'b1;
    endcase
  end

  ////////////////
  // Assertions //
  ////////////////

`ifndef SYNTHESIS
  // A command lasts for one cycle.
  ControlStartLastsOneCycle: assert property (@(posedge clk_i) disable iff (!rst_ni)
      control_start_o |-> $past(control_we));
  ControlCommitLastsOneCycle: assert property (@(posedge clk_i) disable iff (!rst_ni)
      control_commit_o |-> $past(control_we));
  ControlUnloadLastsOneCycle: assert property (@(posedge clk_i) disable iff (!rst_ni)
      control_unload_o |-> $past(control_we));
  ControlResetLastsOneCycle: assert property (@(posedge clk_i) disable iff (!rst_ni)
      control_reset_o |-> $past(control_we));

  // At most one register takes a write, and none takes one that is refused.
  OneRegisterTakesAWrite: assert property (@(posedge clk_i) disable iff (!rst_ni)
      $onehot0({control_we, mode_we, error_we, interrupt_enable_we, interrupt_status_we,
          input_timeout_we, config_select_we, config_address_we, config_data_we, select_we}));
  RefusedDoesNothing: assert property (@(posedge clk_i) disable iff (!rst_ni)
      write_valid_i && write_strb_i != '1 |-> write_refused_o);
`endif

endmodule
