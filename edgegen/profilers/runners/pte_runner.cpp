// A .pte in ExecuTorch, without Python or PyTorch; runner.h has the protocol.
//
//   pte_runner NONCE MODEL.pte
//
// For libexecutorch of the PyPI wheel: pte.py has the compiler's line.
#include <memory>

#include <executorch/devtools/etdump/etdump_flatcc.h>
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor_ptr.h>

#include "runner.h"

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

class PteModel : public Model {
 public:
  explicit PteModel(std::string path) : path_(std::move(path)) {}

  std::string runtime() const override { return RUNTIME " in C++"; }

  void load(unsigned threads) override {
    executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(threads);
    module_ = std::make_unique<Module>(path_);
    load(*module_);
  }

  size_t threads() const override { return executorch::extension::threadpool::get_threadpool()->get_thread_count(); }

  void take(std::vector<Input> inputs) override {
    const auto meta = module_->method_meta("forward");
    if (!meta.ok()) fail("no method 'forward' in " + path_);
    if (meta->num_inputs() != inputs.size()) fail("it takes " + std::to_string(meta->num_inputs()) + " inputs");
    inputs_ = std::move(inputs);
    tensors_.clear();
    values_.clear();
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const auto about = *meta->input_tensor_meta(i);
      inputs_[i].must_have(about.nbytes());
      std::vector<executorch::aten::SizesType> sizes(about.sizes().begin(), about.sizes().end());
      tensors_.push_back(executorch::extension::make_tensor_ptr(sizes, inputs_[i].data.data(), about.scalar_type()));
      values_.emplace_back(*tensors_.back());
    }
  }

  void infer() override { outputs_ = infer(*module_); }

  Output first_output() const override {
    const auto& tensor = outputs_[0].toTensor();
    return {tensor.const_data_ptr(), tensor.nbytes()};
  }

  void trace(unsigned long runs, const std::string& file) override {
    auto* tracer = new executorch::etdump::ETDumpGen();  // the module owns it
    Module traced(path_, Module::LoadMode::File, std::unique_ptr<executorch::runtime::EventTracer>(tracer));
    load(traced);
    for (unsigned long i = 0; i < runs; ++i) infer(traced);
    const auto dump = tracer->get_etdump_data();
    if (!dump.buf) fail("this runtime was built without its event tracer");
    write(file, dump.buf, dump.size);
    std::free(dump.buf);
  }

 private:
  void load(Module& module) {
    const auto error = module.load_method("forward");
    if (error != executorch::runtime::Error::Ok) {
      fail("cannot load the method 'forward' of " + path_ + ": error " + std::to_string(static_cast<int>(error)));
    }
  }

  std::vector<EValue> infer(Module& module) {
    auto made = module.execute("forward", values_);
    if (!made.ok()) fail("it does not run: error " + std::to_string(static_cast<int>(made.error())));
    return std::move(made.get());
  }

  std::string path_;
  std::unique_ptr<Module> module_;
  std::vector<Input> inputs_;
  std::vector<TensorPtr> tensors_;
  std::vector<EValue> values_, outputs_;
};

int main(int count, char** arguments) {
  if (count != 3) fail("give NONCE MODEL.pte");
  PteModel model(arguments[2]);
  return serve(arguments[1], model);
}
