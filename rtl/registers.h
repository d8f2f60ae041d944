/* SPDX-License-Identifier: Apache-2.0
 *
 * Registers of snn_accelerator. Written by `make registers` from registers.rdl; edit that.
 */

#ifndef SPIKEMETER_REGISTERS_H
#define SPIKEMETER_REGISTERS_H

/* Identification; read. */
#define SPIKEMETER_ID_OFFSET 0x00u
/* The letters SPKM. */
#define SPIKEMETER_ID_LSB 0
#define SPIKEMETER_ID_MASK 0xFFFFFFFFu
#define SPIKEMETER_ID_RESET 0x53504B4Du

/* Version of this map; read. */
#define SPIKEMETER_VERSION_OFFSET 0x04u
/* Raised where something was added. */
#define SPIKEMETER_VERSION_MINOR_LSB 0
#define SPIKEMETER_VERSION_MINOR_MASK 0x0000FFFFu
#define SPIKEMETER_VERSION_MINOR_RESET 0x0u
/* Raised where software that knew the map before may no longer use it. */
#define SPIKEMETER_VERSION_MAJOR_LSB 16
#define SPIKEMETER_VERSION_MAJOR_MASK 0xFFFF0000u
#define SPIKEMETER_VERSION_MAJOR_RESET 0x1u

/* Sizes of the network; read. */
#define SPIKEMETER_NETWORK_OFFSET 0x08u
/* Weighted layers. */
#define SPIKEMETER_NETWORK_LAYERS_LSB 0
#define SPIKEMETER_NETWORK_LAYERS_MASK 0x000000FFu
/* Time steps of an inference. */
#define SPIKEMETER_NETWORK_TIME_STEPS_LSB 8
#define SPIKEMETER_NETWORK_TIME_STEPS_MASK 0x00FFFF00u
/* Spikes in a word of the streams. */
#define SPIKEMETER_NETWORK_ENCODER_WIDTH_LSB 24
#define SPIKEMETER_NETWORK_ENCODER_WIDTH_MASK 0xFF000000u

/* Input of an inference; read. */
#define SPIKEMETER_INPUT_WORDS_OFFSET 0x0Cu
/* Words of the input stream, all time steps. */
#define SPIKEMETER_INPUT_WORDS_LSB 0
#define SPIKEMETER_INPUT_WORDS_MASK 0xFFFFFFFFu

/* Output of an inference; read. */
#define SPIKEMETER_OUTPUT_WORDS_OFFSET 0x10u
/* Words of the output stream, all time steps. */
#define SPIKEMETER_OUTPUT_WORDS_LSB 0
#define SPIKEMETER_OUTPUT_WORDS_MASK 0xFFFFFFFFu

/* Configuration of a network; read. */
#define SPIKEMETER_CONFIG_WRITES_OFFSET 0x14u
/* Writes to `config_data` that a whole network takes. */
#define SPIKEMETER_CONFIG_WRITES_LSB 0
#define SPIKEMETER_CONFIG_WRITES_MASK 0xFFFFFFFFu

/* Commands; write. */
#define SPIKEMETER_CONTROL_OFFSET 0x20u
/* Begin one inference on the oldest input that waits. */
#define SPIKEMETER_CONTROL_START_LSB 0
#define SPIKEMETER_CONTROL_START_MASK 0x00000001u
/* The network is whole: inferences may begin. */
#define SPIKEMETER_CONTROL_COMMIT_LSB 1
#define SPIKEMETER_CONTROL_COMMIT_MASK 0x00000002u
/* Forget the network: `config_count` and `configured` become 0. */
#define SPIKEMETER_CONTROL_UNLOAD_LSB 2
#define SPIKEMETER_CONTROL_UNLOAD_MASK 0x00000004u
/* Drop every inference, input and result, and zero the counters; the network, the modes and the
   errors stay. */
#define SPIKEMETER_CONTROL_RESET_LSB 3
#define SPIKEMETER_CONTROL_RESET_MASK 0x00000008u

/* Modes; read, write. */
#define SPIKEMETER_MODE_OFFSET 0x24u
/* Every input begins its inference by itself, while others are under way. */
#define SPIKEMETER_MODE_CONTINUOUS_LSB 0
#define SPIKEMETER_MODE_CONTINUOUS_MASK 0x00000001u
#define SPIKEMETER_MODE_CONTINUOUS_RESET 0x0u
/* A layer begins a step when the layer before has finished it, not all steps; a change waits until
   no inference is under way. */
#define SPIKEMETER_MODE_PIPELINED_LSB 1
#define SPIKEMETER_MODE_PIPELINED_MASK 0x00000002u
#define SPIKEMETER_MODE_PIPELINED_RESET 0x0u

/* Status; read. */
#define SPIKEMETER_STATUS_OFFSET 0x28u
/* No inference is under way or ordered, none begins by itself, and the engine has cleared itself
   after reset. */
#define SPIKEMETER_STATUS_IDLE_LSB 0
#define SPIKEMETER_STATUS_IDLE_MASK 0x00000001u
/* An inference is under way or ordered. */
#define SPIKEMETER_STATUS_BUSY_LSB 1
#define SPIKEMETER_STATUS_BUSY_MASK 0x00000002u
/* An inference has ended since the last `start`. */
#define SPIKEMETER_STATUS_DONE_LSB 2
#define SPIKEMETER_STATUS_DONE_MASK 0x00000004u
/* A whole network is loaded and committed. */
#define SPIKEMETER_STATUS_CONFIGURED_LSB 3
#define SPIKEMETER_STATUS_CONFIGURED_MASK 0x00000008u
/* At least one whole input waits for its inference. */
#define SPIKEMETER_STATUS_INPUT_READY_LSB 4
#define SPIKEMETER_STATUS_INPUT_READY_MASK 0x00000010u
/* The input stream is in the middle of an inference. */
#define SPIKEMETER_STATUS_INPUT_PARTIAL_LSB 5
#define SPIKEMETER_STATUS_INPUT_PARTIAL_MASK 0x00000020u
/* A result waits, or is on the output stream. */
#define SPIKEMETER_STATUS_OUTPUT_WAITING_LSB 6
#define SPIKEMETER_STATUS_OUTPUT_WAITING_MASK 0x00000040u
/* Any bit of `error` is set. */
#define SPIKEMETER_STATUS_ERROR_LSB 7
#define SPIKEMETER_STATUS_ERROR_MASK 0x00000080u
/* Whole inputs that wait; at most three. */
#define SPIKEMETER_STATUS_INPUTS_LSB 8
#define SPIKEMETER_STATUS_INPUTS_MASK 0x00000300u
/* Results in the output buffer; at most two. */
#define SPIKEMETER_STATUS_RESULTS_LSB 10
#define SPIKEMETER_STATUS_RESULTS_MASK 0x00000C00u

/* Errors; read, write 1 to clear. */
#define SPIKEMETER_ERROR_OFFSET 0x2Cu
/* `start` while an inference was under way or ordered, or in continuous mode; ignored. */
#define SPIKEMETER_ERROR_START_BUSY_LSB 0
#define SPIKEMETER_ERROR_START_BUSY_MASK 0x00000001u
#define SPIKEMETER_ERROR_START_BUSY_RESET 0x0u
/* `start`, or continuous mode switched on, without a committed network; no inference begins. */
#define SPIKEMETER_ERROR_START_UNCONFIGURED_LSB 1
#define SPIKEMETER_ERROR_START_UNCONFIGURED_MASK 0x00000002u
#define SPIKEMETER_ERROR_START_UNCONFIGURED_RESET 0x0u
/* `start` without a whole input; ignored. */
#define SPIKEMETER_ERROR_START_NO_INPUT_LSB 2
#define SPIKEMETER_ERROR_START_NO_INPUT_MASK 0x00000004u
#define SPIKEMETER_ERROR_START_NO_INPUT_RESET 0x0u
/* Write to `config_data` while an inference was under way or ordered, or in continuous mode;
   dropped. */
#define SPIKEMETER_ERROR_CONFIG_BUSY_LSB 3
#define SPIKEMETER_ERROR_CONFIG_BUSY_MASK 0x00000008u
#define SPIKEMETER_ERROR_CONFIG_BUSY_RESET 0x0u
/* Write to `config_data` for a layer, space, core, address or decay that does not exist, dropped;
   or a layer in `select` that does not exist. */
#define SPIKEMETER_ERROR_CONFIG_RANGE_LSB 4
#define SPIKEMETER_ERROR_CONFIG_RANGE_MASK 0x00000010u
#define SPIKEMETER_ERROR_CONFIG_RANGE_RESET 0x0u
/* `commit` with fewer writes than `config_writes` since `unload`; the network stays uncommitted. */
#define SPIKEMETER_ERROR_CONFIG_INCOMPLETE_LSB 5
#define SPIKEMETER_ERROR_CONFIG_INCOMPLETE_MASK 0x00000020u
#define SPIKEMETER_ERROR_CONFIG_INCOMPLETE_RESET 0x0u
/* TLAST before the last word of an inference; the input is dropped. */
#define SPIKEMETER_ERROR_INPUT_SHORT_LSB 6
#define SPIKEMETER_ERROR_INPUT_SHORT_MASK 0x00000040u
#define SPIKEMETER_ERROR_INPUT_SHORT_RESET 0x0u
/* No TLAST on the last word of an inference; the input is dropped, up to TLAST. */
#define SPIKEMETER_ERROR_INPUT_LONG_LSB 7
#define SPIKEMETER_ERROR_INPUT_LONG_MASK 0x00000080u
#define SPIKEMETER_ERROR_INPUT_LONG_RESET 0x0u
/* The input stream paused for `input_timeout` cycles inside an inference; the input is dropped. */
#define SPIKEMETER_ERROR_INPUT_STOPPED_LSB 8
#define SPIKEMETER_ERROR_INPUT_STOPPED_MASK 0x00000100u
#define SPIKEMETER_ERROR_INPUT_STOPPED_RESET 0x0u
/* Bits set beyond the last spike of a time step; they are ignored. */
#define SPIKEMETER_ERROR_INPUT_PADDING_LSB 9
#define SPIKEMETER_ERROR_INPUT_PADDING_MASK 0x00000200u
#define SPIKEMETER_ERROR_INPUT_PADDING_RESET 0x0u
/* Access to an address that is not there, a write to what is read only, or a write of fewer than
   four bytes; answered with SLVERR. */
#define SPIKEMETER_ERROR_BUS_LSB 10
#define SPIKEMETER_ERROR_BUS_MASK 0x00000400u
#define SPIKEMETER_ERROR_BUS_RESET 0x0u

/* Interrupts that reach the pin; read, write. */
#define SPIKEMETER_INTERRUPT_ENABLE_OFFSET 0x30u
/* An inference has ended. */
#define SPIKEMETER_INTERRUPT_ENABLE_DONE_LSB 0
#define SPIKEMETER_INTERRUPT_ENABLE_DONE_MASK 0x00000001u
#define SPIKEMETER_INTERRUPT_ENABLE_DONE_RESET 0x0u
/* An error has occurred. */
#define SPIKEMETER_INTERRUPT_ENABLE_ERROR_LSB 1
#define SPIKEMETER_INTERRUPT_ENABLE_ERROR_MASK 0x00000002u
#define SPIKEMETER_INTERRUPT_ENABLE_ERROR_RESET 0x0u

/* Interrupts; read, write 1 to clear. */
#define SPIKEMETER_INTERRUPT_STATUS_OFFSET 0x34u
/* An inference has ended. */
#define SPIKEMETER_INTERRUPT_STATUS_DONE_LSB 0
#define SPIKEMETER_INTERRUPT_STATUS_DONE_MASK 0x00000001u
#define SPIKEMETER_INTERRUPT_STATUS_DONE_RESET 0x0u
/* An error has occurred. */
#define SPIKEMETER_INTERRUPT_STATUS_ERROR_LSB 1
#define SPIKEMETER_INTERRUPT_STATUS_ERROR_MASK 0x00000002u
#define SPIKEMETER_INTERRUPT_STATUS_ERROR_RESET 0x0u

/* Patience with the input stream; read, write. */
#define SPIKEMETER_INPUT_TIMEOUT_OFFSET 0x38u
/* Cycles without a word inside an inference, after which the input is dropped; 0 for no limit. */
#define SPIKEMETER_INPUT_TIMEOUT_LSB 0
#define SPIKEMETER_INPUT_TIMEOUT_MASK 0xFFFFFFFFu
#define SPIKEMETER_INPUT_TIMEOUT_RESET 0x100000u

/* Where configuration goes; read, write. */
#define SPIKEMETER_CONFIG_SELECT_OFFSET 0x40u
/* Weighted layer. */
#define SPIKEMETER_CONFIG_SELECT_LAYER_LSB 0
#define SPIKEMETER_CONFIG_SELECT_LAYER_MASK 0x000000FFu
#define SPIKEMETER_CONFIG_SELECT_LAYER_RESET 0x0u
/* 0 weights, 1 biases, 2 constants. */
#define SPIKEMETER_CONFIG_SELECT_SPACE_LSB 8
#define SPIKEMETER_CONFIG_SELECT_SPACE_MASK 0x00000300u
#define SPIKEMETER_CONFIG_SELECT_SPACE_RESET 0x0u
/* Neural core; of no effect for constants. */
#define SPIKEMETER_CONFIG_SELECT_CORE_LSB 16
#define SPIKEMETER_CONFIG_SELECT_CORE_MASK 0xFFFF0000u
#define SPIKEMETER_CONFIG_SELECT_CORE_RESET 0x0u

/* Address of the next write; read, write. */
#define SPIKEMETER_CONFIG_ADDRESS_OFFSET 0x44u
/* Address inside the space; one more after every write to `config_data`. */
#define SPIKEMETER_CONFIG_ADDRESS_LSB 0
#define SPIKEMETER_CONFIG_ADDRESS_MASK 0xFFFFFFFFu
#define SPIKEMETER_CONFIG_ADDRESS_RESET 0x0u

/* Configuration; read, write. */
#define SPIKEMETER_CONFIG_DATA_OFFSET 0x48u
/* Value to write; the engine uses the low bits that the place has. */
#define SPIKEMETER_CONFIG_DATA_LSB 0
#define SPIKEMETER_CONFIG_DATA_MASK 0xFFFFFFFFu
#define SPIKEMETER_CONFIG_DATA_RESET 0x0u

/* Configuration so far; read. */
#define SPIKEMETER_CONFIG_COUNT_OFFSET 0x4Cu
/* Writes to `config_data` that were accepted since `unload`. */
#define SPIKEMETER_CONFIG_COUNT_LSB 0
#define SPIKEMETER_CONFIG_COUNT_MASK 0xFFFFFFFFu

/* Inferences; read. */
#define SPIKEMETER_INFERENCES_OFFSET 0x50u
/* Inferences that have ended since reset. */
#define SPIKEMETER_INFERENCES_LSB 0
#define SPIKEMETER_INFERENCES_MASK 0xFFFFFFFFu

/* Latency; read. */
#define SPIKEMETER_LATENCY_OFFSET 0x54u
/* Cycles of the last inference that `start` began, from its dispatch to its last cycle. */
#define SPIKEMETER_LATENCY_LSB 0
#define SPIKEMETER_LATENCY_MASK 0xFFFFFFFFu

/* Initiation interval; read. */
#define SPIKEMETER_INTERVAL_OFFSET 0x58u
/* Cycles between the ends of the last two inferences; 0 before the second. */
#define SPIKEMETER_INTERVAL_LSB 0
#define SPIKEMETER_INTERVAL_MASK 0xFFFFFFFFu

/* What `layer` and `cycles` show; read, write. */
#define SPIKEMETER_SELECT_OFFSET 0x60u
/* Weighted layer. */
#define SPIKEMETER_SELECT_LAYER_LSB 0
#define SPIKEMETER_SELECT_LAYER_MASK 0x000000FFu
#define SPIKEMETER_SELECT_LAYER_RESET 0x0u
/* 0 encode, 1 accumulate, 2 fire, 3 stall. */
#define SPIKEMETER_SELECT_BUCKET_LSB 8
#define SPIKEMETER_SELECT_BUCKET_MASK 0x00000300u
#define SPIKEMETER_SELECT_BUCKET_RESET 0x0u

/* Hardware of the selected layer; read. */
#define SPIKEMETER_LAYER_OFFSET 0x64u
/* Neural cores. */
#define SPIKEMETER_LAYER_CORES_LSB 0
#define SPIKEMETER_LAYER_CORES_MASK 0x0000FFFFu
/* Bits of a membrane potential. */
#define SPIKEMETER_LAYER_MEMBRANE_BITS_LSB 16
#define SPIKEMETER_LAYER_MEMBRANE_BITS_MASK 0x003F0000u
/* Bits of a weight. */
#define SPIKEMETER_LAYER_WEIGHT_BITS_LSB 22
#define SPIKEMETER_LAYER_WEIGHT_BITS_MASK 0x03C00000u
/* Kernel taps that a core serves in a cycle. */
#define SPIKEMETER_LAYER_TAPS_PER_CYCLE_LSB 26
#define SPIKEMETER_LAYER_TAPS_PER_CYCLE_MASK 0x3C000000u
/* 1 for Lapicque neurons, 0 for LIF. */
#define SPIKEMETER_LAYER_LAPICQUE_LSB 30
#define SPIKEMETER_LAYER_LAPICQUE_MASK 0x40000000u

/* Cycles of the selected layer; read. */
#define SPIKEMETER_CYCLES_OFFSET 0x68u
/* Cycles of its last inference in the selected bucket. */
#define SPIKEMETER_CYCLES_LSB 0
#define SPIKEMETER_CYCLES_MASK 0xFFFFFFFFu

#endif /* SPIKEMETER_REGISTERS_H */
