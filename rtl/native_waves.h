// SPDX-License-Identifier: Apache-2.0
//
// Value changes of every signal (VCD) while inferences run, for waves.py. Time counts half cycles
// from the rising edge that begins the first inference; between inferences nothing is written.
//
// Cost: none in a model that is built without tracing.

#pragma once

#include <cstdint>
#include <string>

#if VM_TRACE
#include <unistd.h>

#include "verilated_vcd_c.h"

// Waits where the reader of a pipe is slow; Verilator's own class asks again and again.
class OpenFile : public VerilatedVcdFile {
 public:
  bool open(const std::string& descriptor) override {
    descriptor_ = std::stoi(descriptor);
    return true;
  }
  void close() override { ::close(descriptor_); }
  ssize_t write(const char* text, ssize_t size) override {
    return ::write(descriptor_, text, static_cast<std::size_t>(size));
  }

 private:
  int descriptor_ = -1;
};

class Waves {
 public:
  // The descriptor is the number of an open file
  template <typename Model>
  Waves(Model& top, const char* descriptor) : changes_(&file_) {
    top.trace(&changes_, 99);
    changes_.open(descriptor);
  }

  // The next inference is to be shown
  void expect() { expected_ = true; }
  bool expected() const { return expected_; }
  void begin(std::uint64_t half_cycles) {
    if (origin_ == kNever) origin_ = half_cycles;
    expected_ = false;
    left_ = kUnlimited;
  }
  // The model has settled around an edge
  void edge(std::uint64_t half_cycles) {
    if (left_ == 0) return;
    changes_.dump(half_cycles - origin_);
    if (left_ != kUnlimited) left_--;
  }
  // The inference is done; two more cycles show what it leaves
  void end() { left_ = 4; }
  void close() { changes_.close(); }

 private:
  static constexpr std::uint64_t kNever = UINT64_MAX;
  static constexpr std::uint32_t kUnlimited = UINT32_MAX;

  OpenFile file_;
  VerilatedVcdC changes_;
  bool expected_ = false;
  std::uint32_t left_ = 0;
  std::uint64_t origin_ = kNever;
};
#else
class Waves {
 public:
  template <typename Model>
  Waves(Model&, const char*) {}
  void expect() {}
  bool expected() const { return false; }
  void begin(std::uint64_t) {}
  void edge(std::uint64_t) {}
  void end() {}
  void close() {}
};
#endif
