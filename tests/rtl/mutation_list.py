"""Changes that break the RTL, for ``mutations.py``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One exact replacement in one file, where the old text must stand exactly once.

    Where it is `banked`, networks with nine taps per cycle are likely to notice it first.
    """

    file: str
    breaks: str
    old: str
    new: str
    banked: bool = False


MUTATIONS = (
    Mutation(
        file="event_control.sv",
        breaks="the first tap of an event near the far edge reaches outside the frame",
        old="TapWidth'(position + Padding - side + 1) : '0",
        new="TapWidth'(position + Padding - side) : '0",
    ),
    Mutation(
        file="event_control.sv",
        breaks="the last tap of an event near the first edge is left out",
        old="position + Padding + 1 < Kernel ? TapWidth'(position + Padding)",
        new="position + Padding < Kernel ? TapWidth'(position + Padding - 1)",
    ),
    Mutation(
        file="event_control.sv",
        breaks="a word that enters the list while one leaves is overwritten by the next",
        old="if (list_push) list_wr_q <= list_wr_q + CntWidth'(1);",
        new="if (list_push && !list_fetch) list_wr_q <= list_wr_q + CntWidth'(1);",
    ),
    Mutation(
        file="event_control.sv",
        breaks="a step fires although a word still waits behind the list",
        old="&& list_rd_q == list_wr_q && !list_valid_q && !pending_valid",
        new="&& list_rd_q == list_wr_q && !pending_valid",
    ),
    Mutation(
        file="event_control.sv",
        breaks="a step starts before its input is there",
        old="dispatch    = state_q == StIdle && in_step_valid_i && out_free_i",
        new="dispatch    = state_q == StIdle && (in_step_valid_i || step_q != '0) && out_free_i",
    ),
    Mutation(
        file="event_control.sv",
        breaks="a step starts although its output has no room",
        old="dispatch    = state_q == StIdle && in_step_valid_i && out_free_i",
        new="dispatch    = state_q == StIdle && in_step_valid_i && (out_free_i || step_q == '0)",
    ),
    Mutation(
        file="event_control.sv",
        breaks="a step ends one cycle before its last spikes are in the buffer",
        old="DrainCycles  = FireLatency + 3 +",
        new="DrainCycles  = FireLatency + 2 +",
    ),
    Mutation(
        file="event_control.sv",
        breaks="encode goes before accumulate where a cycle is both",
        old="""perf_accumulate_o = state_q == StScan && event_valid_q;
  assign perf_encode_o     = state_q == StScan && !event_valid_q;""",
        new="""perf_accumulate_o = state_q == StScan && event_valid_q && !in_next_o;
  assign perf_encode_o     = state_q == StScan && (!event_valid_q || in_next_o);""",
    ),
    Mutation(
        file="event_control.sv",
        breaks="the currents are not cleared after reset",
        old="op_clear_o      <= state_q == StClear;",
        new="op_clear_o      <= 1'b0;",
    ),
    Mutation(
        file="core_array.sv",
        breaks="two additions to the same current in a row lose the first one",
        old="forward[b]    = written_q[b] && written_neuron_q[b] == neuron_q[b]",
        new="forward[b]    = written_q[b] && 1'b0 && written_neuron_q[b] == neuron_q[b]",
    ),
    Mutation(
        file="core_array.sv",
        breaks="the current that was written last is taken for every other one",
        old="forward[b]    = written_q[b] && written_neuron_q[b] == neuron_q[b]",
        new="forward[b]    = written_q[b] && (written_neuron_q[b] == neuron_q[b] || accumulate_q)",
    ),
    Mutation(
        file="core_array.sv",
        breaks="cores without a channel in the last phase spike",
        old="spk_o[b] = spk_last_phase_q ? of_bank & OwnersInLastPhase : of_bank",
        new="spk_o[b] = spk_last_phase_q ? of_bank | ~OwnersInLastPhase : of_bank",
    ),
    Mutation(
        file="neuron_bank.sv",
        breaks="a membrane above its largest value wraps",
        old="if (sum > SumWidth'(MemMax)) saturated = MemMax;",
        new="if (sum > SumWidth'(MemMax)) saturated = MembraneBits'(sum);",
    ),
    Mutation(
        file="neuron_bank.sv",
        breaks="a membrane below its smallest value wraps",
        old="if (sum < SumWidth'(MemMin)) saturated = MemMin;",
        new="if (sum < SumWidth'(MemMin)) saturated = MembraneBits'(sum);",
    ),
    Mutation(
        file="neuron_bank.sv",
        breaks="the decayed membrane of a LIF neuron is rounded, not floored",
        old="(MembraneBits + 1)'(total >>> FractionBits)",
        new="(MembraneBits + 1)'((total + DecayWidth'(1 << (FractionBits - 1))) >>> FractionBits)",
    ),
    Mutation(
        file="neuron_bank.sv",
        breaks="a negative term of a LIF neuron's decay is added",
        old="total -= DecayWidth'(mem) <<< (4'(FractionBits) - decay_i[6*k+:4]);",
        new="total += DecayWidth'(mem) <<< (4'(FractionBits) - decay_i[6*k+:4]);",
    ),
    Mutation(
        file="neuron_bank.sv",
        breaks="the decayed membrane of a Lapicque neuron is truncated towards zero",
        old="decayed_q <= (MembraneBits + 1)'(product >>> FractionBits);",
        new="decayed_q <= (MembraneBits + 1)'(product / ProductWidth'(1 << FractionBits));",
    ),
    Mutation(
        file="neuron_bank.sv",
        breaks="the sign of a Lapicque neuron's decay is ignored",
        old="product = factor_q * $signed(decay_i)",
        new="product = factor_q * $signed({1'b0, decay_i})",
    ),
    Mutation(
        file="neuron_bank.sv",
        breaks="a LIF neuron that resets to zero keeps its membrane",
        old="decayed_q <= reset && reset_zero_i ? '0 : decayed(mem_old);",
        new="decayed_q <= decayed(mem_old);",
    ),
    Mutation(
        file="neuron_bank.sv",
        breaks="a Lapicque neuron that resets to zero keeps its step",
        old="early_forget_q <= reset && reset_zero_i;",
        new="early_forget_q <= 1'b0;",
    ),
    Mutation(
        file="neuron_bank.sv",
        breaks="the first step begins with the membrane of the inference before",
        old="mem_old = first_step_i ? '0 : mem_rdata_q",
        new="mem_old = first_step_i && threshold_i < 0 ? '0 : mem_rdata_q",
    ),
    Mutation(
        file="neuron_bank.sv",
        breaks="a neuron fires at the threshold, not above it",
        old="<= mem_new > threshold_i;",
        new="<= mem_new >= threshold_i;",
    ),
    Mutation(
        file="neuron_bank.sv",
        breaks="firing leaves the input current for the next step",
        old="current + CurrentBits'(weight_i) : '0;",
        new="current + CurrentBits'(weight_i) : current;",
    ),
    Mutation(
        file="line_packer.sv",
        breaks="the incomplete line of a step is lost",
        old="(valid_i && full) || (flush_i && fill_q != '0)",
        new="(valid_i && full)",
    ),
    Mutation(
        file="line_packer.sv",
        breaks="spikes behind a full line are taken for others",
        old="waiting_q <= full ? LineWidth'(joined >> LineWidth) : LineWidth'(joined);",
        new="waiting_q <= full ? LineWidth'(joined >> (LineWidth - 1)) : LineWidth'(joined);",
    ),
    Mutation(
        file="spike_packer.sv",
        breaks="pooling sees the last row of a square only",
        old="row_in_q == '0 && col_in_q == '0 ? spk_i",
        new="col_in_q == '0 ? spk_i",
    ),
    Mutation(
        file="spike_packer.sv",
        breaks="pooling takes a column that does not fill a square",
        old="&& col_q < ColWidth'(PooledWidth * Pool)",
        new="&& col_q <= ColWidth'(PooledWidth * Pool)",
    ),
    Mutation(
        file="spike_buffer.sv",
        breaks="the second inference is written over the first one",
        old="wr_ptr_q <= wr_ptr_q == AddrWidth'(Depth - 1)",
        new="wr_ptr_q <= wr_ptr_q == AddrWidth'(Depth / 2 - 1)",
    ),
    Mutation(
        file="spike_buffer.sv",
        breaks="one half is never used",
        old="wr_free_o       = whole_q != 2'd2",
        new="wr_free_o       = whole_q == 2'd0",
    ),
    Mutation(
        file="spike_buffer.sv",
        breaks="a layer starts a step before the layer before has finished all of them",
        old="(pipelined_i && rd_step_q < wr_step_q)",
        new="((pipelined_i || 1'b1) && rd_step_q < wr_step_q)",
    ),
    Mutation(
        file="perf_counters.sv",
        breaks="an inference counts on where the one before ended",
        old="cnt_q <= done_i ? '0 : cnt_d;",
        new="cnt_q <= cnt_d;",
    ),
    Mutation(
        file="snn_top.sv.j2",
        breaks="the first inference starts while layers still clear their currents",
        old="may_start = go_q && cleared_q",
        new="may_start = go_q && (cleared_q || 1'b1)",
    ),
    Mutation(
        file="snn_top.sv.j2",
        breaks="an inference stands still where no new one may start",
        old="(mid_inference_q || may_start)",
        new="(mid_inference_q && may_start || may_start)",
    ),
    Mutation(
        file="event_control.sv",
        breaks="an event reaches a row of banks beyond the frame",
        old="reached = far >= tap(far, bank) && far - tap(far, bank) < side;",
        new="reached = far >= tap(far, bank);",
        banked=True,
    ),
    Mutation(
        file="event_control.sv",
        breaks="an event before the first row reaches a bank",
        old="reached = far >= tap(far, bank) && far - tap(far, bank) < side;",
        new="reached = far - tap(far, bank) < side || far < tap(far, bank);",
        banked=True,
    ),
    Mutation(
        file="event_control.sv",
        breaks="rows of banks are numbered from the other end",
        old="tap = (far + 3 - bank) % 3;",
        new="tap = (far + 1 + bank) % 3;",
        banked=True,
    ),
    Mutation(
        file="event_control.sv",
        breaks="rows and columns of the kernel are exchanged",
        old="LaneWidth'(3 * 32'(gen_row[b/3].ky_q) + 32'(gen_col[b%3].kx_q))",
        new="LaneWidth'(3 * 32'(gen_col[b%3].kx_q) + 32'(gen_row[b/3].ky_q))",
        banked=True,
    ),
    Mutation(
        file="event_control.sv",
        breaks="every bank is addressed as that of the farthest row",
        old="tile_q    <= TileRowWidth'((far_row - tap(far_row, y)) / 3);",
        new="tile_q    <= TileRowWidth'(far_row / 3);",
        banked=True,
    ),
    Mutation(
        file="event_control.sv",
        breaks="all input channels share the weights of one",
        old="service_weight = WeightWidth'(32'(event_chan_q) * Phases + 32'(service_phase_q));",
        new="service_weight = WeightWidth'(32'(service_phase_q) + 32'(event_chan_q & '0));",
        banked=True,
    ),
    Mutation(
        file="core_array.sv",
        breaks="a bank that an event does not reach is written",
        old="current_we[b] = (accumulate_q && reached_q[b]) || fire_q",
        new="current_we[b] = accumulate_q || (reached_q[b] && 1'b0) || fire_q",
        banked=True,
    ),
    Mutation(
        file="core_array.sv",
        breaks="a bank forwards what it has not written",
        old="written_q       <= current_we;",
        new="written_q       <= {Banks{|current_we}};",
        banked=True,
    ),
    Mutation(
        file="neural_core.sv",
        breaks="every bank gets the first weight of the word",
        old="assign weight = word_q[lane_i[b]];",
        new="assign weight = word_q[lane_i[b] & '0];",
        banked=True,
    ),
    Mutation(
        file="neural_core.sv",
        breaks="a word of weights takes the same weight in every lane",
        old="cfg_weight_we_i && cfg_lane_i == LaneWidth'(b)",
        new="cfg_weight_we_i && (cfg_lane_i == LaneWidth'(b) || cfg_lane_i == '0)",
        banked=True,
    ),
    Mutation(
        file="strip_packer.sv",
        breaks="the second strip is written over the first one",
        old="if (filled) wr_half_q <= !wr_half_q;",
        new="if (filled) wr_half_q <= wr_half_q;",
        banked=True,
    ),
    Mutation(
        file="strip_packer.sv",
        breaks="the last strip of a step is never read",
        old="filled        = strip_ends && wr_strip_q < StripWidth'(Strips);",
        new="filled        = strip_ends && wr_strip_q < StripWidth'(Strips) && !last_tile_row;",
        banked=True,
    ),
    Mutation(
        file="strip_packer.sv",
        breaks="a strip without a whole row is read",
        old="filled        = strip_ends && wr_strip_q < StripWidth'(Strips);",
        new="filled        = strip_ends && wr_strip_q <= StripWidth'(Strips);",
        banked=True,
    ),
    Mutation(
        file="strip_packer.sv",
        breaks="a pixel keeps spikes of the strip that had its place",
        old="row_begins[y] && col_begins[c%3] && phase_q == '0",
        new="row_begins[y] && col_begins[c%3] && phase_q == '0 && wr_strip_q == '0",
        banked=True,
    ),
    Mutation(
        file="strip_packer.sv",
        breaks="a pixel forgets what the tile before saw of it",
        old="row_begins[y] && col_begins[c%3] && phase_q == '0",
        new="row_begins[y] && phase_q == '0",
        banked=True,
    ),
    Mutation(
        file="strip_packer.sv",
        breaks="pooling takes the tile for the first of its square",
        old="pooled[(3*32'(sub_row_q)+y)/Pool][(3*32'(sub_col_q)+x)/Pool]",
        new="pooled[(3*32'(sub_row_q)+y)/Pool][x/Pool]",
        banked=True,
    ),
    Mutation(
        file="strip_packer.sv",
        breaks="every phase is written to the channels of the first",
        old="pooled[y][c%3][i%Cores] && phase_q == PhaseWidth'(i / Cores);",
        new="pooled[y][c%3][i%Cores] && phase_q != PhaseWidth'(i / Cores + 1);",
        banked=True,
    ),
    Mutation(
        file="strip_packer.sv",
        breaks="pixels behind the end of a row are read from the same row",
        old="row_q != 2'(y) ? 0 : 32'(col_q) / Columns + (c < 32'(col_q) % Columns ? 1 : 0)",
        new="32'(col_q) / Columns + (c < 32'(col_q) % Columns ? 1 : 0)",
        banked=True,
    ),
    Mutation(
        file="strip_packer.sv",
        breaks="pixels beyond the column of a memory are read at its address",
        old="(c < 32'(col_q) % Columns ? 1 : 0)",
        new="(c < 32'(col_q) % Columns ? 0 : 0)",
        banked=True,
    ),
    Mutation(
        file="strip_packer.sv",
        breaks="the last pixels of a strip bring those beyond it",
        old="chunk_cnt_q <= last_read ? 4'(left_q) : 4'(Pixels);",
        new="chunk_cnt_q <= 4'(Pixels);",
        banked=True,
    ),
    Mutation(
        file="snn_layer.sv",
        breaks="a step does not wait for the strip before the last one",
        old="WriteBackCycles = Banks == 1 ? 0 : 1 + WaitCycles + LastCycles;",
        new="WriteBackCycles = Banks == 1 ? 0 : 1 + (WaitCycles > 0 ? 0 : 0) + LastCycles;",
        banked=True,
    ),
    Mutation(
        file="snn_layer.sv",
        breaks="fewer pixels are read at once than keep up with the cores",
        old="TileRate >= 9 ? 1 : TileRate >= 3 ? 3 : 9",
        new="TileRate >= 4 ? 1 : TileRate >= 3 ? 3 : 9",
        banked=True,
    ),
)
