// SPDX-License-Identifier: Apache-2.0
//
// The registers of the engine (registers.rdl) and what they do: the start of inferences, errors,
// interrupts and counters; config_port does the configuration.
//
// An inference that `start` orders begins when its input is resident, the engine idle and the
// output buffer has room, so that nothing outside can change its cycles; in continuous mode layer 0
// begins whenever it has input. `reset` resets the engine and both streams, but no memory: the
// network stays.
//
// Cost: layer 0 is dispatched in the third cycle after the one that takes the write of `start`, if
// nothing is to be waited for. `latency` counts from the dispatch.

module control_status #(
  parameter  int unsigned            Layers       = 1,
  parameter  int unsigned            TimeSteps    = 8,
  parameter  int unsigned            EncoderWidth = 32,
  /// Words of an inference on the streams.
  parameter  int unsigned            InputWords   = 128,
  parameter  int unsigned            OutputWords  = 8,
  /// Configuration writes that a whole network takes.
  parameter  int unsigned            ConfigWrites = 1,
  /// Layer by layer, the first in the lowest bits: register `layer`, and how many addresses the
  /// weights and biases of a core have.
  parameter  logic [32*Layers-1:0]   LayerInfo    = '0,
  parameter  logic [32*Layers-1:0]   WeightCounts = '0,
  parameter  logic [32*Layers-1:0]   BiasCounts   = '0,
  /// Bits of a register's byte address.
  parameter  int unsigned            AddrWidth    = 7
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,

  // AXI4-Lite (see axi_lite_port)
  input  logic                 aw_valid_i,
  output logic                 aw_ready_o,
  input  logic [AddrWidth-1:0] aw_addr_i,
  input  logic                 w_valid_i,
  output logic                 w_ready_o,
  input  logic [31:0]          w_data_i,
  input  logic [3:0]           w_strb_i,
  output logic                 b_valid_o,
  input  logic                 b_ready_i,
  output logic [1:0]           b_resp_o,
  input  logic                 ar_valid_i,
  output logic                 ar_ready_o,
  input  logic [AddrWidth-1:0] ar_addr_i,
  output logic                 r_valid_o,
  input  logic                 r_ready_i,
  output logic [31:0]          r_data_o,
  output logic [1:0]           r_resp_o,
  // High while an enabled interrupt is set
  output logic                 irq_o,

  // Reset of the engine and the streams
  output logic                 engine_rst_no,

  // Engine (see snn_top)
  output logic                 go_o,
  output logic                 pipelined_o,
  output logic                 cfg_we_o,
  output logic [7:0]           cfg_layer_o,
  output logic [1:0]           cfg_space_o,
  output logic [15:0]          cfg_core_o,
  output logic [31:0]          cfg_addr_o,
  output logic [31:0]          cfg_data_o,
  input  logic [Layers-1:0]    busy_i,
  input  logic [3:0]           first_bucket_i,
  input  logic                 done_i,
  input  logic [31:0]          start_cycle_i,
  input  logic [31:0]          done_cycle_i,
  output logic [7:0]           perf_layer_o,
  output logic [1:0]           perf_bucket_o,
  input  logic [31:0]          perf_cnt_i,

  // Input stream (see input_stream)
  output logic [31:0]          input_timeout_o,
  input  logic                 input_arrived_i,
  input  logic                 input_handed_i,
  input  logic                 input_partial_i,
  input  logic                 input_handing_i,
  input  logic                 input_short_i,
  input  logic                 input_long_i,
  input  logic                 input_stopped_i,
  input  logic                 input_padding_i,

  // Output stream (see output_stream)
  input  logic                 output_valid_i,
  input  logic                 output_left_i
);

  localparam int unsigned FlightWidth = $clog2(3 * Layers + 2);

  ///////////////
  // Registers //
  ///////////////

  logic                 write_valid, write_refused, read_refused, refused;
  logic [AddrWidth-1:0] write_addr, read_addr;
  logic [31:0]          write_data, read_data;
  logic [3:0]           write_strb;

  logic                 start, commit, unload, restart;
  logic                 mode_written, mode_continuous, mode_pipelined;
  logic [10:0]          error_set, error;
  logic                 interrupt_done, interrupt_error, enable_done, enable_error;
  logic                 data_written, select_written;
  logic [7:0]           config_layer, select_layer;
  logic [30:0]          shown_info;
  logic [31:0]          shown_cycles;

  // What the engine is doing
  logic                   configured, config_range, pending_q, done_q, single_q, ended_q;
  logic [31:0]            config_cnt, inference_cnt_q, latency_q, interval_q, last_done_q;
  logic [1:0]             input_cnt_q, result_cnt_q;
  logic [FlightWidth-1:0] flight_cnt_q;
  logic                   active, begins, error_any;

  axi_lite_port #(
    .AddrWidth(AddrWidth)
  ) u_axi_lite_port (
    .clk_i,
    .rst_ni,
    .aw_valid_i,
    .aw_ready_o,
    .aw_addr_i,
    .w_valid_i,
    .w_ready_o,
    .w_data_i,
    .w_strb_i,
    .b_valid_o,
    .b_ready_i,
    .b_resp_o,
    .ar_valid_i,
    .ar_ready_o,
    .ar_addr_i,
    .r_valid_o,
    .r_ready_i,
    .r_data_o,
    .r_resp_o,
    .write_valid_o  (write_valid),
    .write_addr_o   (write_addr),
    .write_data_o   (write_data),
    .write_strb_o   (write_strb),
    .write_refused_i(write_refused),
    .read_addr_o    (read_addr),
    .read_data_i    (read_data),
    .read_refused_i (read_refused),
    .refused_o      (refused)
  );

  control_registers u_control_registers (
    .clk_i,
    .rst_ni,
    .write_valid_i              (write_valid),
    .write_addr_i               (write_addr),
    .write_data_i               (write_data),
    .write_strb_i               (write_strb),
    .write_refused_o            (write_refused),
    .read_addr_i                (read_addr),
    .read_data_o                (read_data),
    .read_refused_o             (read_refused),
    .network_layers_i           (8'(Layers)),
    .network_time_steps_i       (16'(TimeSteps)),
    .network_encoder_width_i    (8'(EncoderWidth)),
    .input_words_i              (InputWords),
    .output_words_i             (OutputWords),
    .config_writes_i            (ConfigWrites),
    .control_start_o            (start),
    .control_commit_o           (commit),
    .control_unload_o           (unload),
    .control_reset_o            (restart),
    .mode_written_o             (mode_written),
    .mode_continuous_o          (mode_continuous),
    .mode_pipelined_o           (mode_pipelined),
    .status_idle_i              (!active && busy_i == '0),
    .status_busy_i              (pending_q || flight_cnt_q != '0),
    .status_done_i              (done_q),
    .status_configured_i        (configured),
    .status_input_ready_i       (input_cnt_q != '0),
    .status_input_partial_i     (input_partial_i),
    .status_output_waiting_i    (result_cnt_q != '0 || output_valid_i),
    .status_error_i             (error != '0),
    .status_inputs_i            (input_cnt_q),
    .status_results_i           (result_cnt_q),
    .error_start_busy_set_i        (error_set[0]),
    .error_start_unconfigured_set_i(error_set[1]),
    .error_start_no_input_set_i    (error_set[2]),
    .error_config_busy_set_i       (error_set[3]),
    .error_config_range_set_i      (error_set[4]),
    .error_config_incomplete_set_i (error_set[5]),
    .error_input_short_set_i       (error_set[6]),
    .error_input_long_set_i        (error_set[7]),
    .error_input_stopped_set_i     (error_set[8]),
    .error_input_padding_set_i     (error_set[9]),
    .error_bus_set_i               (error_set[10]),
    .error_start_busy_o            (error[0]),
    .error_start_unconfigured_o    (error[1]),
    .error_start_no_input_o        (error[2]),
    .error_config_busy_o           (error[3]),
    .error_config_range_o          (error[4]),
    .error_config_incomplete_o     (error[5]),
    .error_input_short_o           (error[6]),
    .error_input_long_o            (error[7]),
    .error_input_stopped_o         (error[8]),
    .error_input_padding_o         (error[9]),
    .error_bus_o                   (error[10]),
    .interrupt_enable_done_o    (enable_done),
    .interrupt_enable_error_o   (enable_error),
    .interrupt_status_done_set_i (done_i),
    .interrupt_status_error_set_i(error_any),
    .interrupt_status_done_o    (interrupt_done),
    .interrupt_status_error_o   (interrupt_error),
    .input_timeout_o            (input_timeout_o),
    .config_select_layer_o      (config_layer),
    .config_select_space_o      (cfg_space_o),
    .config_select_core_o       (cfg_core_o),
    .config_address_incr_i      (data_written),
    .config_address_o           (cfg_addr_o),
    .config_data_written_o      (data_written),
    .config_data_o              (cfg_data_o),
    .config_count_i             (config_cnt),
    .inferences_i               (inference_cnt_q),
    .latency_i                  (latency_q),
    .interval_i                 (interval_q),
    .select_written_o           (select_written),
    .select_layer_o             (select_layer),
    .select_bucket_o            (perf_bucket_o),
    .layer_cores_i              (shown_info[15:0]),
    .layer_membrane_bits_i      (shown_info[21:16]),
    .layer_weight_bits_i        (shown_info[25:22]),
    .layer_taps_per_cycle_i     (shown_info[29:26]),
    .layer_lapicque_i           (shown_info[30]),
    .cycles_i                   (shown_cycles)
  );

  assign error_any = error_set != '0;
  assign irq_o     = (interrupt_done && enable_done) || (interrupt_error && enable_error);

  // Counters and sizes of the selected layer; zero for one that is not there
  logic shown;

  assign shown        = 32'(select_layer) < Layers;
  assign perf_layer_o = shown ? select_layer : '0;
  assign shown_info   = shown ? LayerInfo[32*perf_layer_o +: 31] : '0;
  assign shown_cycles = shown ? perf_cnt_i : '0;

  ///////////////////
  // Configuration //
  ///////////////////

  config_port #(
    .Layers      (Layers),
    .ConfigWrites(ConfigWrites),
    .LayerInfo   (LayerInfo),
    .WeightCounts(WeightCounts),
    .BiasCounts  (BiasCounts)
  ) u_config_port (
    .clk_i,
    .rst_ni,
    .layer_i      (config_layer),
    .space_i      (cfg_space_o),
    .core_i       (cfg_core_o),
    .addr_i       (cfg_addr_o),
    .data_i       (cfg_data_o),
    .written_i    (data_written),
    .commit_i     (commit),
    .unload_i     (unload),
    .active_i     (active),
    .we_o         (cfg_we_o),
    .layer_o      (cfg_layer_o),
    .cnt_o        (config_cnt),
    .configured_o (configured),
    .busy_o       (error_set[3]),
    .range_o      (config_range),
    .incomplete_o (error_set[5])
  );

  ////////////////
  // Inferences //
  ////////////////

  // Inputs that the engine holds whole and has not begun; below zero where it begins one early
  logic signed [2:0] resident_q;
  logic              continuous, settled, ordered;

  assign continuous = mode_continuous && configured;
  assign active     = pending_q || flight_cnt_q != '0 || continuous;
  assign settled    = pipelined_o == mode_pipelined;
  assign ordered    = pending_q && resident_q > 3'sd0 && result_cnt_q != 2'd2 && busy_i == '0;
  assign go_o       = settled && (ordered || continuous);
  // Layer 0 is dispatched: it is in a bucket, but was not in an inference
  assign begins     = first_bucket_i != '0 && !busy_i[0];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) engine_rst_no <= 1'b0;
    else engine_rst_no <= !restart;
  end

  always_ff @(posedge clk_i or negedge engine_rst_no) begin
    if (!engine_rst_no) begin
      pending_q    <= 1'b0;
      single_q     <= 1'b0;
      done_q       <= 1'b0;
      pipelined_o  <= 1'b0;
      input_cnt_q  <= '0;
      resident_q   <= '0;
      flight_cnt_q <= '0;
      result_cnt_q <= '0;
    end else begin
      if (start && !active && configured && input_cnt_q != '0) begin
        pending_q <= 1'b1;
        done_q    <= 1'b0;
      end else begin
        if (begins) pending_q <= 1'b0;
        if (done_i) done_q <= 1'b1;
      end
      if (begins) single_q <= pending_q;
      // Not while the engine holds a part of an input
      if (flight_cnt_q == '0 && !begins && !input_handing_i) pipelined_o <= mode_pipelined;
      input_cnt_q  <= input_cnt_q + 2'(input_arrived_i) - 2'(begins);
      resident_q   <= resident_q + 3'(input_handed_i) - 3'(begins);
      flight_cnt_q <= flight_cnt_q + FlightWidth'(begins) - FlightWidth'(done_i);
      result_cnt_q <= result_cnt_q + 2'(done_i) - 2'(output_left_i);
    end
  end

  // The engine's own time of the end is there in the cycle after it
  always_ff @(posedge clk_i or negedge engine_rst_no) begin
    if (!engine_rst_no) begin
      ended_q         <= 1'b0;
      inference_cnt_q <= '0;
      latency_q       <= '0;
      interval_q      <= '0;
      last_done_q     <= '0;
    end else begin
      ended_q <= done_i;
      if (ended_q) begin
        inference_cnt_q <= inference_cnt_q + 32'd1;
        last_done_q     <= done_cycle_i;
        if (single_q) latency_q <= done_cycle_i - start_cycle_i + 32'd1;
        if (inference_cnt_q != '0) interval_q <= done_cycle_i - last_done_q;
      end
    end
  end

  ////////////
  // Errors //
  ////////////

  assign error_set[0]  = start && active;
  assign error_set[1]  = !configured
                         && ((start && !active) || (mode_written && mode_continuous));
  assign error_set[2]  = start && !active && input_cnt_q == '0;
  assign error_set[4]  = config_range || (select_written && !shown);
  assign error_set[6]  = input_short_i;
  assign error_set[7]  = input_long_i;
  assign error_set[8]  = input_stopped_i;
  assign error_set[9]  = input_padding_i;
  assign error_set[10] = refused;

  ////////////////
  // Assertions //
  ////////////////

  if (Layers < 1 || Layers > 255 || TimeSteps > 65535) begin : gen_size_check
    $error("control_status: at most 255 layers and 65535 steps, got %0d, %0d", Layers, TimeSteps);
  end

`ifndef SYNTHESIS
  // An ordered inference begins at once, so its input, its output and the engine were ready.
  OrderedBegins: assert property (@(posedge clk_i) disable iff (!rst_ni || !engine_rst_no)
      go_o && ordered && !begins |=> begins);

  // What is counted fits its counter.
  InputsFit: assert property (@(posedge clk_i) disable iff (!rst_ni || !engine_rst_no)
      input_arrived_i && !begins |-> input_cnt_q != 2'd3);
  ResultsFit: assert property (@(posedge clk_i) disable iff (!rst_ni || !engine_rst_no)
      done_i && !output_left_i |-> result_cnt_q != 2'd2);
  ResultsLeaveOnce: assert property (@(posedge clk_i) disable iff (!rst_ni || !engine_rst_no)
      output_left_i |-> result_cnt_q != '0);
  FlightFits: assert property (@(posedge clk_i) disable iff (!rst_ni || !engine_rst_no)
      32'(flight_cnt_q) <= 3 * Layers && !(done_i && flight_cnt_q == '0));

  // An inference begins only if one was ordered, or in continuous mode.
  BeginsOnlyAsOrdered: assert property (@(posedge clk_i) disable iff (!rst_ni || !engine_rst_no)
      begins |-> pending_q || $past(continuous));

  // An interrupt reaches the pin only if it is enabled.
  InterruptOnlyIfEnabled: assert property (@(posedge clk_i) disable iff (!rst_ni)
      irq_o |-> enable_done || enable_error);
`endif

endmodule
