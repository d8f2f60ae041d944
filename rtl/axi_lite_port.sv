// SPDX-License-Identifier: Apache-2.0
//
// AXI4-Lite on one side, reads and writes of single registers on the other. An access that the
// registers refuse is answered with SLVERR and does nothing.
//
// Cost: a write is accepted in the cycle that offers both its address and its data, and answered in
// the next one; a read likewise. One write and one read are under way at a time, so a write takes
// two cycles, and what it commands is seen by a read that is offered after its answer.

module axi_lite_port #(
  /// Bits of a byte address.
  parameter int unsigned AddrWidth = 7
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,

  // Write address, write data and their answer
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

  // Read address and its answer
  input  logic                 ar_valid_i,
  output logic                 ar_ready_o,
  input  logic [AddrWidth-1:0] ar_addr_i,
  output logic                 r_valid_o,
  input  logic                 r_ready_i,
  output logic [31:0]          r_data_o,
  output logic [1:0]           r_resp_o,

  // Registers: answers in the same cycle
  output logic                 write_valid_o,
  output logic [AddrWidth-1:0] write_addr_o,
  output logic [31:0]          write_data_o,
  output logic [3:0]           write_strb_o,
  input  logic                 write_refused_i,
  output logic [AddrWidth-1:0] read_addr_o,
  input  logic [31:0]          read_data_i,
  input  logic                 read_refused_i,
  // High in the cycle of an access that is refused
  output logic                 refused_o
);

  localparam logic [1:0] RespOkay  = 2'b00;
  localparam logic [1:0] RespError = 2'b10;

  logic write, read;

  assign write         = aw_valid_i && w_valid_i && !b_valid_o;
  assign aw_ready_o    = write;
  assign w_ready_o     = write;
  assign write_valid_o = write;
  assign write_addr_o  = aw_addr_i;
  assign write_data_o  = w_data_i;
  assign write_strb_o  = w_strb_i;

  assign ar_ready_o    = !r_valid_o;
  assign read          = ar_valid_i && ar_ready_o;
  assign read_addr_o   = ar_addr_i;

  assign refused_o     = (write && write_refused_i) || (read && read_refused_i);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      b_valid_o <= 1'b0;
      r_valid_o <= 1'b0;
    end else begin
      b_valid_o <= write || (b_valid_o && !b_ready_i);
      r_valid_o <= read || (r_valid_o && !r_ready_i);
    end
  end

  always_ff @(posedge clk_i) begin
    if (write) b_resp_o <= write_refused_i ? RespError : RespOkay;
    if (read) begin
      r_resp_o <= read_refused_i ? RespError : RespOkay;
      r_data_o <= read_data_i;
    end
  end

  ////////////////
  // Assertions //
  ////////////////

`ifndef SYNTHESIS
  // An answer holds until it is taken.
  WriteAnswerHoldsUntilTaken: assert property (@(posedge clk_i) disable iff (!rst_ni)
      b_valid_o && !b_ready_i |=> b_valid_o && $stable(b_resp_o));
  ReadAnswerHoldsUntilTaken: assert property (@(posedge clk_i) disable iff (!rst_ni)
      r_valid_o && !r_ready_i |=> r_valid_o && $stable(r_resp_o) && $stable(r_data_o));

  // The host, too, holds what it offers.
  WriteAddressHolds: assert property (@(posedge clk_i) disable iff (!rst_ni)
      aw_valid_i && !aw_ready_o |=> aw_valid_i && $stable(aw_addr_i));
  WriteDataHolds: assert property (@(posedge clk_i) disable iff (!rst_ni)
      w_valid_i && !w_ready_o |=> w_valid_i && $stable(w_data_i) && $stable(w_strb_i));
  ReadAddressHolds: assert property (@(posedge clk_i) disable iff (!rst_ni)
      ar_valid_i && !ar_ready_o |=> ar_valid_i && $stable(ar_addr_i));
`endif

endmodule
