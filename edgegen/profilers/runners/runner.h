// The protocol of the runners of files, without Python; pte_runner.cpp and onnx_runner.cpp each bring a Model.
//
// Commands come by stdin, fields separated by tabs; edgegen/profilers/timing/process.py sends them. INPUT is SHAPE:FILE
// ("1x3x32x32:noise.bin", ":time.bin" of a scalar), raw numbers of the file's inputs in their order.
//
//   open   THREADS INPUT...               load, and the first inference
//   block  LEAST_RUNS LEAST_MS MOST_MS    inferences back to back, until both of the first are reached, or the third is
//   run    OUTPUT [INPUT...]              one inference (on other inputs); OUTPUT gets its first output's raw numbers
//   trace  RUNS FILE                      inferences with the runtime's own profiler on; FILE gets what it wrote
//   probe                                 a fixed piece of arithmetic: has the processor slowed down?
//
// The first line of output says "ready" and the runtime; each command is answered by one line of JSON with the nonce and
// its number in turn. An error ends the process: a line on stderr, exit code 1. python_runner.py speaks the same protocol.
#pragma once

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#if defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>

// The instruction that 8-bit kernels live on, against plain arithmetic: an emulator has been seen to get it wrong.
inline bool dot_products_are_right() {
  for (int start = -128; start < 128; ++start) {
    int8_t a[16], b[16];
    int32_t wanted[4] = {0, 0, 0, 0}, found[4];
    for (int i = 0; i < 16; ++i) {
      a[i] = static_cast<int8_t>(start + 37 * i);
      b[i] = static_cast<int8_t>(91 * i - start);
      wanted[i / 4] += a[i] * b[i];
    }
    vst1q_s32(found, vdotq_s32(vdupq_n_s32(0), vld1q_s8(a), vld1q_s8(b)));
    for (int i = 0; i < 4; ++i) {
      if (found[i] != wanted[i]) return false;
    }
  }
  return true;
}
#else
inline bool dot_products_are_right() { return true; }
#endif

using Clock = std::chrono::steady_clock;

[[noreturn]] inline void fail(std::string what) {
  std::replace(what.begin(), what.end(), '\n', ' ');
  std::fprintf(stderr, "runner: %s\n", what.c_str());
  std::exit(1);
}

inline double ms_since(Clock::time_point began) {
  return std::chrono::duration<double, std::milli>(Clock::now() - began).count();
}

inline rusage used() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage;
}

inline double cpu_ms() {
  const rusage usage = used();
  return 1e3 * (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + 1e-3 * (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

inline long long peak_rss_bytes() {
#if defined(__APPLE__)
  return used().ru_maxrss;
#else
  std::ifstream status("/proc/self/status");  // ru_maxrss would be the parent's, where that was larger
  for (std::string word; status >> word;) {
    long long kib;
    if (word == "VmHWM:" && status >> kib) return 1024 * kib;
  }
  return 1024LL * used().ru_maxrss;
#endif
}

// One INPUT: its sizes, and the raw numbers.
struct Input {
  explicit Input(const std::string& given) : path(given.substr(given.find(':') + 1)) {
    std::istringstream shape(given.substr(0, given.find(':')));
    for (std::string size; std::getline(shape, size, 'x');) sizes.push_back(std::stoll(size));
    std::ifstream file(path, std::ios::binary);
    data.assign(std::istreambuf_iterator<char>(file), {});
  }

  void must_have(size_t nbytes) const {
    if (data.size() != nbytes) {
      fail(path + " has " + std::to_string(data.size()) + " bytes, not " + std::to_string(nbytes));
    }
  }

  std::string path;
  std::vector<int64_t> sizes;
  std::vector<char> data;
};

inline void write(const std::string& path, const void* data, size_t nbytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(static_cast<const char*>(data), static_cast<std::streamsize>(nbytes));
  file.close();
  if (!file) fail("cannot write " + path);
}

// A file in its runtime. What it made last is valid until the next inference.
class Model {
 public:
  struct Output {
    const void* data;
    size_t nbytes;
  };

  virtual ~Model() = default;
  virtual std::string runtime() const = 0;
  virtual void load(unsigned threads) = 0;  // timed; it comes first
  virtual size_t threads() const = 0;
  virtual void take(std::vector<Input> inputs) = 0;  // those of the inferences that follow
  virtual void infer() = 0;
  virtual Output first_output() const = 0;
  virtual void trace(unsigned long runs, const std::string& file) = 0;
};

class Runner {
 public:
  Runner(std::string nonce, Model& model) : nonce_(std::move(nonce)), model_(model) {
    answer("ready", ", \"runtime\": \"" + model_.runtime() + "\"");
  }

  void obey(const std::vector<std::string>& words) {
    const size_t given = words.size();
    if (words[0] == "open" && given >= 2) return open(words);
    if (words[0] == "probe" && given == 1) return probe();
    if (!opened_) fail("first comes open");
    if (words[0] == "block" && given == 4) return block(words);
    if (words[0] == "run" && given >= 2) return run(words);
    if (words[0] == "trace" && given == 3) return trace(words);
    fail("no such command: " + words[0]);
  }

 private:
  void open(const std::vector<std::string>& words) {
    const auto began = Clock::now();
    model_.load(static_cast<unsigned>(std::stoul(words[1])));
    const double load_ms = ms_since(began);
    read(words);
    const auto loaded = Clock::now();
    model_.infer();
    const double first_ms = ms_since(loaded);
    opened_ = true;
    std::ostringstream facts;
    facts << ", \"load_ms\": " << load_ms << ", \"first_ms\": " << first_ms << ", \"threads\": " << model_.threads();
    answer("open", facts.str());
  }

  void block(const std::vector<std::string>& words) {
    const size_t least_runs = std::stoul(words[1]);
    const double least_ms = std::stod(words[2]), most_ms = std::stod(words[3]);
    std::vector<double> samples;
    samples.reserve(1 << 16);
    const auto start = Clock::now();
    for (double spent = 0; spent < most_ms && (samples.size() < least_runs || spent < least_ms);) {
      const auto began = Clock::now();
      model_.infer();
      samples.push_back(ms_since(began));
      spent = ms_since(start);
    }
    std::ostringstream facts;
    facts.precision(9);
    facts << ", \"samples_ms\": [";
    for (size_t i = 0; i < samples.size(); ++i) facts << (i ? ", " : "") << samples[i];
    facts << "]";
    answer("block", facts.str());
  }

  void run(const std::vector<std::string>& words) {
    if (words.size() > 2) read(words);
    model_.infer();
    const Model::Output made = model_.first_output();
    write(words[1], made.data, made.nbytes);
    answer("run", ", \"nbytes\": " + std::to_string(made.nbytes));
  }

  void trace(const std::vector<std::string>& words) {
    model_.trace(std::stoul(words[1]), words[2]);
    answer("trace", "");
  }

  // The best of a few rounds of the same work, some 50 ms in all: a processor's clock, and not another program.
  void probe() {
    double best = 1e9;
    uint32_t value = 1;
    for (int round = 0; round < 8; ++round) {
      const auto began = Clock::now();
      for (int i = 0; i < 4000000; ++i) value = value * 1664525u + 1013904223u;
      best = std::min(best, ms_since(began));
    }
    answer("probe", ", \"probe_ms\": " + std::to_string(best) + ", \"value\": " + std::to_string(value));
  }

  // The inputs behind a command's first two words.
  void read(const std::vector<std::string>& words) {
    std::vector<Input> inputs;
    for (size_t i = 2; i < words.size(); ++i) inputs.emplace_back(words[i]);
    model_.take(std::move(inputs));
  }

  void answer(const char* event, const std::string& facts) {
    std::cout << "{\"nonce\": \"" << nonce_ << "\", \"number\": " << number_++ << ", \"event\": \"" << event << "\""
              << facts << ", \"cpu_ms\": " << cpu_ms() << ", \"peak_rss_bytes\": " << peak_rss_bytes() << "}" << std::endl;
  }

  std::string nonce_;
  Model& model_;
  int number_ = 0;
  bool opened_ = false;
};

// Carries out the commands on stdin until it ends.
inline int serve(const std::string& nonce, Model& model) {
  if (!dot_products_are_right()) fail("this processor, or its emulator, multiplies 8-bit numbers wrongly");
  Runner runner(nonce, model);
  for (std::string line; std::getline(std::cin, line);) {
    std::vector<std::string> words;
    std::istringstream fields(line);
    for (std::string word; std::getline(fields, word, '\t');) words.push_back(word);
    if (words.empty()) fail("an empty command");
    runner.obey(words);
  }
  return 0;
}
