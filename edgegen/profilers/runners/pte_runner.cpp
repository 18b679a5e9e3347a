// Runs and times a .pte without Python or PyTorch, on commands read from stdin; edgegen/profilers/timing/process.py sends them.
//
//   pte_runner NONCE MODEL.pte
//
// A command's fields are separated by tabs; INPUT is SHAPE:FILE, raw numbers of an input of the method "forward".
//
//   open   THREADS INPUT...               load, and the first inference
//   block  LEAST_RUNS LEAST_MS MOST_MS    inferences back to back, until both of the first are reached, or the third is
//   run    OUTPUT [INPUT...]              one inference (on other inputs); OUTPUT gets its first output's raw numbers
//   trace  RUNS FILE                      inferences with the runtime's event tracer on; FILE gets the ETDump
//   probe                                 a fixed piece of arithmetic: has the processor slowed down?
//
// The first line of output says "ready" and the runtime; each command is answered by one line of JSON with the nonce and its number in
// turn. An error ends the process: a line on stderr, exit code 1. python_runner.py speaks the same protocol. For libexecutorch of the PyPI wheel: toolchain.py has the compiler's line.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <executorch/devtools/etdump/etdump_flatcc.h>
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor_ptr.h>

#if defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>

// The instruction that 8-bit kernels live on, against plain arithmetic: an emulator has been seen to get it wrong.
static bool dot_products_are_right() {
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
static bool dot_products_are_right() { return true; }
#endif

// The wheel exports these and has no header for them; edgegen pins its version.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
  size_t get_thread_count() const;
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::EValue;
using Clock = std::chrono::steady_clock;

[[noreturn]] static void fail(const std::string& what) {
  std::fprintf(stderr, "pte_runner: %s\n", what.c_str());
  std::exit(1);
}

static double ms_since(Clock::time_point began) {
  return std::chrono::duration<double, std::milli>(Clock::now() - began).count();
}

static rusage used() {
  rusage found;
  getrusage(RUSAGE_SELF, &found);
  return found;
}

static double cpu_ms() {
  const rusage found = used();
  return 1e3 * (found.ru_utime.tv_sec + found.ru_stime.tv_sec) + 1e-3 * (found.ru_utime.tv_usec + found.ru_stime.tv_usec);
}

static long long peak_rss_bytes() {
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

class Runner {
 public:
  Runner(std::string nonce, std::string path) : nonce_(std::move(nonce)), path_(std::move(path)) {
    answer("ready", ", \"runtime\": \"" RUNTIME " in C++\"");
  }

  void obey(const std::vector<std::string>& words) {
    const size_t given = words.size();
    if (words[0] == "open" && given >= 2) return open(words);
    if (words[0] == "probe" && given == 1) return probe();
    if (!module_) fail("first comes open");
    if (words[0] == "block" && given == 4) return block(words);
    if (words[0] == "run" && given >= 2) return run(words);
    if (words[0] == "trace" && given == 3) return trace(words);
    fail("no such command: " + words[0]);
  }

 private:
  void open(const std::vector<std::string>& words) {
    executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(std::stoul(words[1]));
    const auto began = Clock::now();
    module_ = std::make_unique<Module>(path_);
    load(*module_);
    const double load_ms = ms_since(began);
    read({words.begin() + 2, words.end()});
    const auto loaded = Clock::now();
    infer(*module_);
    const double first_ms = ms_since(loaded);
    const size_t threads = executorch::extension::threadpool::get_threadpool()->get_thread_count();
    std::ostringstream facts;
    facts << ", \"load_ms\": " << load_ms << ", \"first_ms\": " << first_ms << ", \"threads\": " << threads;
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
      infer(*module_);
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
    if (words.size() > 2) read({words.begin() + 2, words.end()});
    const auto made = infer(*module_);
    const auto& tensor = made[0].toTensor();
    write(words[1], tensor.const_data_ptr(), tensor.nbytes());
    answer("run", ", \"nbytes\": " + std::to_string(tensor.nbytes()));
  }

  void trace(const std::vector<std::string>& words) {
    auto* tracer = new executorch::etdump::ETDumpGen();  // the module owns it
    Module traced(path_, Module::LoadMode::File, std::unique_ptr<executorch::runtime::EventTracer>(tracer));
    load(traced);
    for (unsigned long i = 0; i < std::stoul(words[1]); ++i) infer(traced);
    const auto dump = tracer->get_etdump_data();
    if (!dump.buf) fail("this runtime was built without its event tracer");
    write(words[2], dump.buf, dump.size);
    std::free(dump.buf);
    answer("trace", ", \"nbytes\": " + std::to_string(dump.size));
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

  void load(Module& module) {
    const auto error = module.load_method("forward");
    if (error != executorch::runtime::Error::Ok) {
      fail("cannot load the method 'forward' of " + path_ + ": error " + std::to_string(static_cast<int>(error)));
    }
  }

  void read(const std::vector<std::string>& inputs) {
    std::vector<std::string> paths;
    for (const auto& input : inputs) paths.push_back(input.substr(input.find(':') + 1));
    const auto meta = module_->method_meta("forward");
    if (!meta.ok()) fail("no method 'forward' in " + path_);
    if (meta->num_inputs() != paths.size()) fail("it takes " + std::to_string(meta->num_inputs()) + " inputs");
    data_.assign(paths.size(), {});
    tensors_.clear();
    values_.clear();
    for (size_t i = 0; i < paths.size(); ++i) {
      std::ifstream file(paths[i], std::ios::binary);
      data_[i].assign(std::istreambuf_iterator<char>(file), {});
      const auto about = *meta->input_tensor_meta(i);
      if (data_[i].size() != about.nbytes()) {
        fail(paths[i] + " has " + std::to_string(data_[i].size()) + " bytes, not " + std::to_string(about.nbytes()));
      }
      std::vector<executorch::aten::SizesType> sizes(about.sizes().begin(), about.sizes().end());
      tensors_.push_back(executorch::extension::make_tensor_ptr(sizes, data_[i].data(), about.scalar_type()));
      values_.emplace_back(*tensors_.back());
    }
  }

  std::vector<EValue> infer(Module& module) {
    auto made = module.execute("forward", values_);
    if (!made.ok()) fail("it does not run: error " + std::to_string(static_cast<int>(made.error())));
    return std::move(made.get());
  }

  void write(const std::string& path, const void* data, size_t size) {
    std::ofstream file(path, std::ios::binary);
    file.write(static_cast<const char*>(data), size);
    file.close();
    if (!file) fail("cannot write " + path);
  }

  void answer(const char* event, const std::string& facts) {
    std::cout << "{\"nonce\": \"" << nonce_ << "\", \"number\": " << number_++ << ", \"event\": \"" << event << "\""
              << facts << ", \"cpu_ms\": " << cpu_ms() << ", \"peak_rss_bytes\": " << peak_rss_bytes() << "}" << std::endl;
  }

  std::string nonce_, path_;
  int number_ = 0;
  std::unique_ptr<Module> module_;
  std::vector<std::vector<char>> data_;
  std::vector<TensorPtr> tensors_;
  std::vector<EValue> values_;
};

int main(int count, char** arguments) {
  if (count != 3) fail("give NONCE MODEL.pte");
  if (!dot_products_are_right()) fail("this processor, or its emulator, multiplies 8-bit numbers wrongly");
  Runner runner(arguments[1], arguments[2]);
  for (std::string line; std::getline(std::cin, line);) {
    std::vector<std::string> words;
    std::istringstream fields(line);
    for (std::string word; std::getline(fields, word, '\t');) words.push_back(word);
    if (words.empty()) fail("an empty command");
    runner.obey(words);
  }
  return 0;
}
