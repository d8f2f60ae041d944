// SPDX-License-Identifier: Apache-2.0
//
// Native side of the simulation: the job of testbench.py on the same Verilated model, without
// Python in the loop. The bench only drives and reads, in the same cycles; simulator.py judges.
//
// Where the job asks for it, the first sample leaves a trace: whenever a layer goes from one bucket
// to another or to its next step, the cycle, the layer, the bucket bits and the step. Built with
// tracing, the first samples leave their waves (see native_waves.h).
//
// A job and its result are files of little-endian 32-bit words; runners.py writes and reads them.
// A result begins with the simulated cycles and the nanoseconds that they took, loading excluded;
// one of a single word is the mask of busy layers of an inference that exceeded its cycles.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "Vsnn_top.h"
#include "native_waves.h"
#include "verilated.h"
#if VM_COVERAGE
#include "verilated_cov.h"
#endif

namespace {

using Words = std::vector<std::uint32_t>;

// Reads the job word by word; a job that ends early is an error.
class JobReader {
 public:
  explicit JobReader(const char* path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) throw std::runtime_error("cannot read the job");
    words_.resize(static_cast<std::size_t>(file.tellg()) / sizeof(std::uint32_t));
    file.seekg(0);
    file.read(reinterpret_cast<char*>(words_.data()),
              static_cast<std::streamsize>(words_.size() * sizeof(std::uint32_t)));
  }

  std::uint32_t next() {
    if (position_ == words_.size()) throw std::runtime_error("the job ends early");
    return words_[position_++];
  }

  Words take(std::size_t count) {
    Words taken(count);
    for (auto& word : taken) word = next();
    return taken;
  }

 private:
  Words words_;
  std::size_t position_ = 0;
};

// Ports are integers up to 64 bits and arrays of 32-bit limbs beyond.
template <typename Port>
void set_limbs(Port& port, const std::uint32_t* limbs, unsigned count) {
  if constexpr (std::is_integral_v<Port>) {
    std::uint64_t value = limbs[0];
    if (count > 1) value |= static_cast<std::uint64_t>(limbs[1]) << 32;
    port = static_cast<Port>(value);
  } else {
    for (unsigned i = 0; i < count; i++) port[i] = limbs[i];
  }
}

template <typename Port>
void append_limbs(const Port& port, unsigned count, Words& out) {
  if constexpr (std::is_integral_v<Port>) {
    out.push_back(static_cast<std::uint32_t>(port));
    if (count > 1) out.push_back(static_cast<std::uint32_t>(static_cast<std::uint64_t>(port) >> 32));
  } else {
    for (unsigned i = 0; i < count; i++) out.push_back(port[i]);
  }
}

struct Address {
  std::uint32_t line, sub;
};

struct Job {
  std::uint32_t layers, time_steps, pipelined, traced, recorded, limbs;
  std::uint64_t limit_cycles;
  std::vector<Words> writes;                            // layer, space, core, address, data
  std::vector<Words> samples;                           // limbs of all words of a sample
  Words stream;                                         // sample numbers
  std::vector<std::vector<std::vector<Address>>> reads;  // buffer, half
};

Job read_job(const char* path) {
  JobReader in(path);
  Job job{};
  job.layers = in.next();
  job.time_steps = in.next();
  job.pipelined = in.next();
  job.traced = in.next();
  job.recorded = in.next();
  job.limbs = in.next();
  job.limit_cycles = in.next();
  job.limit_cycles |= static_cast<std::uint64_t>(in.next()) << 32;
  for (auto count = in.next(); count > 0; count--) job.writes.push_back(in.take(5));
  const auto samples = in.next(), sample_limbs = in.next();
  for (std::uint32_t i = 0; i < samples; i++) job.samples.push_back(in.take(sample_limbs));
  job.stream = in.take(in.next());
  for (std::uint32_t buffer = 0; buffer <= job.layers; buffer++) {
    auto& halves = job.reads.emplace_back(2);
    for (auto& half : halves) {
      for (auto count = in.next(); count > 0; count--) {
        const auto line = in.next();
        half.push_back({line, in.next()});
      }
    }
  }
  return job;
}

// An inference exceeded its cycles; a mask of the layers that are busy.
struct Unfinished {
  std::uint32_t busy;
};

class Bench {
 public:
  Bench(const Job& job, const char* waves) : job_(job), waves_(top_, waves) {}

  void start() {
    // Inputs may power up with anything
    top_.clk_i = top_.go_i = top_.pipelined_i = top_.cfg_we_i = 0;
    top_.in_valid_i = top_.out_ready_i = top_.peek_valid_i = 0;
    top_.rst_ni = 1;
    top_.eval();
    top_.rst_ni = 0;
    top_.eval();
    cycle();
    cycle();
    top_.rst_ni = 1;
    top_.pipelined_i = job_.pipelined != 0;
    cycle();
    top_.cfg_we_i = 1;
    for (const auto& write : job_.writes) {
      top_.cfg_layer_i = static_cast<std::uint8_t>(write[0]);
      top_.cfg_space_i = static_cast<std::uint8_t>(write[1]);
      top_.cfg_core_i = static_cast<std::uint16_t>(write[2]);
      top_.cfg_addr_i = write[3];
      top_.cfg_data_i = write[4];
      cycle();
    }
    top_.cfg_we_i = 0;
  }

  // Cycles, buckets of every layer, and the words of every buffer
  void run_one(const Words& sample, std::uint32_t inference, Words& out) {
    for (std::size_t fed = 0; fed < sample.size();) fed = feed(sample, fed);
    top_.in_valid_i = 0;
    top_.go_i = 1;
    top_.out_ready_i = 0;
    tracing_ = job_.traced != 0 && inference == 0;
    const bool shown = inference < job_.recorded;
    if (shown) waves_.expect();
    wait_done();
    if (shown) waves_.end();
    if (tracing_) record();
    tracing_ = false;
    top_.go_i = 0;
    out.push_back(top_.done_cycle_o - top_.start_cycle_o + 1);
    for (std::uint32_t layer = 0; layer < job_.layers; layer++) {
      for (std::uint32_t bucket = 0; bucket < 4; bucket++) {
        top_.perf_layer_i = static_cast<std::uint8_t>(layer);
        top_.perf_bucket_i = static_cast<std::uint8_t>(bucket);
        cycle();
        out.push_back(top_.perf_cnt_o);
      }
    }
    read_buffers(inference % 2, out);
    if (inference + 1 == job_.recorded) waves_.close();
    top_.out_ready_i = 1;
    for (std::uint32_t step = 0; step < job_.time_steps; step++) cycle();
    top_.out_ready_i = 0;
  }

  // The cycle in which each sample of the stream is done, and the words of the last two
  void run_stream(Words& out) {
    top_.go_i = 1;
    top_.out_ready_i = 1;
    std::size_t next = 0, fed = 0;
    std::uint64_t waited = 0;
    for (std::size_t done = 0; done < job_.stream.size();) {
      if (next < job_.stream.size()) {
        const auto& sample = job_.samples[job_.stream[next]];
        fed = feed(sample, fed);
        if (fed == sample.size()) {
          fed = 0;
          next++;
        }
      } else {
        top_.in_valid_i = 0;
        cycle();
      }
      if (reported_) {
        out.push_back(top_.done_cycle_o);
        done++;
        waited = 0;
      } else if (++waited > job_.limit_cycles) {
        throw_limit();
      }
    }
    const auto inferences = job_.samples.size() + job_.stream.size();
    for (auto inference = inferences - 2; inference < inferences; inference++) {
      read_buffers(inference % 2, out);
    }
  }

  std::uint64_t cycles() const { return cycles_; }
  const Words& trace() const { return trace_; }

 private:
  // One cycle, from falling edge to falling edge
  void cycle() {
    if (tracing_) record();
    reported_ = top_.done_o;
#if defined(CHECKED) || VM_TRACE
    // Assertions and waves take what has settled before the edge, inputs of this cycle included
    top_.eval();
#endif
    waves_.edge(2 * cycles_ - 1);
    top_.clk_i = 1;
    top_.eval();
    if (waves_.expected() && dispatched()) waves_.begin(2 * cycles_);
    waves_.edge(2 * cycles_);
    top_.clk_i = 0;
    top_.eval();
    cycles_++;
    // Shown beside a failed assertion
    Verilated::threadContextp()->timeInc(1);
  }

  // Layer 0 is in an inference, or begins one in this cycle
  bool dispatched() const {
    Words buckets;
    append_limbs(top_.bucket_o, 1, buckets);
    return (buckets[0] & 15) != 0;
  }

  // What has changed since the cycle before
  void record() {
    Words buckets, step_done;
    append_limbs(top_.bucket_o, (4 * job_.layers + 31) / 32, buckets);
    append_limbs(top_.step_done_o, (job_.layers + 31) / 32, step_done);
    bucket_.resize(job_.layers);
    step_.resize(job_.layers);
    for (std::uint32_t layer = 0; layer < job_.layers; layer++) {
      const auto bucket = buckets[layer / 8] >> (4 * (layer % 8)) & 15;
      if (bucket != bucket_[layer]) {
        const auto now = static_cast<std::uint32_t>(cycles_);
        trace_.insert(trace_.end(), {now, layer, bucket, step_[layer]});
      }
      // The first cycle of a step is a change, whatever its bucket
      const bool last = step_done[layer / 32] >> (layer % 32) & 1;
      bucket_[layer] = last ? kStepEnds : bucket;
      step_[layer] += last;
    }
  }

  // Every packed word of one half of every buffer
  void read_buffers(std::size_t half, Words& out) {
    top_.peek_valid_i = 1;
    for (std::uint32_t buffer = 0; buffer <= job_.layers; buffer++) {
      top_.peek_buffer_i = static_cast<std::uint8_t>(buffer);
      for (const auto& address : job_.reads[buffer][half]) {
        top_.peek_line_i = address.line;
        top_.peek_sub_i = static_cast<std::uint8_t>(address.sub);
        cycle();
        append_limbs(top_.peek_word_o, job_.limbs, out);
      }
    }
    top_.peek_valid_i = 0;
  }

  // One cycle in which the next word is offered if there is room for it
  std::size_t feed(const Words& sample, std::size_t fed) {
    const bool ready = top_.in_ready_o;
    top_.in_valid_i = ready;
    if (ready) {
      set_limbs(top_.in_word_i, &sample[fed], job_.limbs);
      fed += job_.limbs;
    }
    cycle();
    return fed;
  }

  void wait_done() {
    for (std::uint64_t waited = 0; waited <= job_.limit_cycles; waited++) {
      cycle();
      if (reported_) return;
    }
    throw_limit();
  }

  [[noreturn]] void throw_limit() const {
    Words busy;
    append_limbs(top_.busy_o, 1, busy);
    throw Unfinished{busy[0]};
  }

  // A bucket that no cycle has
  static constexpr std::uint32_t kStepEnds = 16;

  const Job& job_;
  Vsnn_top top_;
  Waves waves_;
  bool tracing_ = false;
  Words trace_, bucket_, step_;
  std::uint64_t cycles_ = 0;
  // done_o was high in the cycle that has just ended, so done_cycle_o is up to date
  bool reported_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 5) {
    std::fprintf(stderr, "usage: %s JOB RESULT [COVERAGE] [WAVES]\n", argv[0]);
    return 2;
  }
  // Has effect where the model was built with --x-initial unique
  Verilated::threadContextp()->randReset(2);
#if VM_TRACE
  Verilated::threadContextp()->traceEverOn(true);
#endif
  try {
    const Job job = read_job(argv[1]);
    Words result(4);
    Bench bench(job, argv[argc - 1]);
    bench.start();
    const auto loaded = bench.cycles();
    const auto began = std::chrono::steady_clock::now();
    for (std::uint32_t i = 0; i < job.samples.size(); i++) bench.run_one(job.samples[i], i, result);
    bench.run_stream(result);
    const auto simulated = bench.cycles() - loaded;
    result[0] = static_cast<std::uint32_t>(simulated);
    result[1] = static_cast<std::uint32_t>(simulated >> 32);
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - began;
    const auto nanoseconds = static_cast<std::uint64_t>(taken.count());
    result[2] = static_cast<std::uint32_t>(nanoseconds);
    result[3] = static_cast<std::uint32_t>(nanoseconds >> 32);
    result.insert(result.end(), bench.trace().begin(), bench.trace().end());
    std::ofstream file(argv[2], std::ios::binary);
    file.write(reinterpret_cast<const char*>(result.data()),
               static_cast<std::streamsize>(result.size() * sizeof(std::uint32_t)));
#if VM_COVERAGE
    if (argc > 3) Verilated::threadContextp()->coveragep()->write(argv[3]);
#endif
    return file ? 0 : 1;
  } catch (const Unfinished& unfinished) {
    std::ofstream(argv[2], std::ios::binary)
        .write(reinterpret_cast<const char*>(&unfinished.busy), sizeof(unfinished.busy));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
}
