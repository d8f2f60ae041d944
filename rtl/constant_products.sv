// SPDX-License-Identifier: Apache-2.0
//
// For yosys' techmap: a product with a constant becomes shifts and additions, as vendor tools build
// it. Otherwise the products of addresses, such as (row x width), would take multipliers that
// the products of membranes are to have. In plain Verilog, which techmap reads.
//
// Cost: one addition for each bit that is set in the constant.

(* techmap_celltype = "$mul" *)
module constant_product (A, B, Y);

  // Set by techmap
  parameter A_SIGNED = 0;
  parameter B_SIGNED = 0;
  parameter A_WIDTH = 1;
  parameter B_WIDTH = 1;
  parameter Y_WIDTH = 1;
  parameter _TECHMAP_CONSTMSK_A_ = 0;
  parameter _TECHMAP_CONSTVAL_A_ = 0;
  parameter _TECHMAP_CONSTMSK_B_ = 0;
  parameter _TECHMAP_CONSTVAL_B_ = 0;

  input  [A_WIDTH-1:0] A;
  input  [B_WIDTH-1:0] B;
  output [Y_WIDTH-1:0] Y;

  localparam AFixed = &_TECHMAP_CONSTMSK_A_;
  localparam BFixed = &_TECHMAP_CONSTMSK_B_;
  localparam Width  = AFixed ? A_WIDTH : B_WIDTH;
  localparam Signed = AFixed ? A_SIGNED : B_SIGNED;
  localparam [Width-1:0] Factor = AFixed ? _TECHMAP_CONSTVAL_A_ : _TECHMAP_CONSTVAL_B_;

  // Products of two variables are left to the multipliers
  wire _TECHMAP_FAIL_ = !(AFixed || BFixed);

  // The variable as wide as the product, and sums of that width, one behind the other
  wire [Y_WIDTH-1:0]           value;
  wire [Y_WIDTH*(Width+1)-1:0] sums;

  assign sums[0 +: Y_WIDTH] = 0;
  assign Y                  = sums[Y_WIDTH*Width +: Y_WIDTH];

  genvar i;
  generate
    if (AFixed && B_SIGNED) begin : gen_signed_b
      assign value = $signed(B);
    end else if (AFixed) begin : gen_b
      assign value = B;
    end else if (A_SIGNED) begin : gen_signed_a
      assign value = $signed(A);
    end else begin : gen_a
      assign value = A;
    end
    // The highest bit of a signed constant counts as negative
    for (i = 0; i < Width; i = i + 1) begin : gen_bit
      if (Factor[i] && Signed && i == Width - 1) begin : gen_subtract
        assign sums[Y_WIDTH*(i+1) +: Y_WIDTH] = sums[Y_WIDTH*i +: Y_WIDTH] - (value << i);
      end else if (Factor[i]) begin : gen_add
        assign sums[Y_WIDTH*(i+1) +: Y_WIDTH] = sums[Y_WIDTH*i +: Y_WIDTH] + (value << i);
      end else begin : gen_keep
        assign sums[Y_WIDTH*(i+1) +: Y_WIDTH] = sums[Y_WIDTH*i +: Y_WIDTH];
      end
    end
  endgenerate

endmodule
