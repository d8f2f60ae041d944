// SPDX-License-Identifier: Apache-2.0
//
// Counts the cycles of an inference by bucket and keeps those of the last one.
//
//   id  bucket      meaning
//   0   encode      the event control looks for spikes and the cores have nothing to do
//   1   accumulate  the cores add a weight
//   2   fire        neurons are updated, and the last spikes travel to the buffer
//   3   stall       a step is dispatched, or waits for its input or for room for its output
//
// Cost: none.

module perf_counters (
  input  logic             clk_i,
  input  logic             rst_ni,

  // At most one bit is high: the bucket of this cycle
  input  logic [3:0]       perf_i,
  // Last cycle of an inference
  input  logic             done_i,

  output logic [3:0][31:0] bucket_cnt_o
);

  logic [3:0][31:0] cnt_d, cnt_q;

  always_comb begin
    for (int unsigned i = 0; i < 4; i++) cnt_d[i] = cnt_q[i] + 32'(perf_i[i]);
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      cnt_q        <= '0;
      bucket_cnt_o <= '0;
    end else begin
      cnt_q <= done_i ? '0 : cnt_d;
      if (done_i) bucket_cnt_o <= cnt_d;
    end
  end

  ////////////////
  // Assertions //
  ////////////////

`ifndef SYNTHESIS
  // Cycles from the first counted one to the end of the inference
  logic [31:0] cycle_cnt_q;
  logic        running;

  assign running = perf_i != '0;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) cycle_cnt_q <= '0;
    else if (done_i) cycle_cnt_q <= '0;
    else if (running || cycle_cnt_q != '0) cycle_cnt_q <= cycle_cnt_q + 32'd1;
  end

  // Every cycle of an inference is in exactly one bucket.
  BucketsSumToCycles: assert property (@(posedge clk_i) disable iff (!rst_ni)
      done_i |-> cnt_d[0] + cnt_d[1] + cnt_d[2] + cnt_d[3] == cycle_cnt_q + 32'd1);

  // Counters never wrap within an inference.
  CountersNeverWrap: assert property (@(posedge clk_i) disable iff (!rst_ni)
      cycle_cnt_q != '1);

  // A cycle is in at most one bucket, and the last one of an inference is in one.
  AtMostOneBucket: assert property (@(posedge clk_i) disable iff (!rst_ni) $onehot0(perf_i));
  LastCycleIsCounted: assert property (@(posedge clk_i) disable iff (!rst_ni)
      done_i |-> perf_i != '0);
`endif

endmodule
