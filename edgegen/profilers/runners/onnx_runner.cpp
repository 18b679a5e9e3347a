// A .onnx or .ort in ONNX Runtime's C API, without Python; runner.h has the protocol.
//
//   onnx_runner NONCE LIBRARY PROVIDER MODEL.onnx
//
// LIBRARY is a libonnxruntime as dlopen takes it, of the API version of the header or newer. PROVIDER is one of
// PROVIDERS: what it does not take runs on the CPU, and the trace says which operations ran where.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include "runner.h"

// By the name of our own: the library's, and the one by which SessionOptionsAppendExecutionProvider takes it.
struct Provider {
  const char *name, *full, *added;
};
static const Provider PROVIDERS[] = {
    {"cpu", "CPUExecutionProvider", nullptr},
    {"xnnpack", "XnnpackExecutionProvider", "XNNPACK"},
    {"nnapi", "NnapiExecutionProvider", nullptr},  // a function of its own
    {"qnn", "QNNExecutionProvider", "QNN"},
};
using AddNnapi = OrtStatus* (*)(OrtSessionOptions*, uint32_t flags);

class OnnxModel : public Model {
 public:
  OnnxModel(const std::string& library, const std::string& provider, std::string path)
      : library_(library), path_(std::move(path)) {
    handle_ = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle_) fail(dlerror());
    const auto base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(handle_, "OrtGetApiBase"));
    if (!base) fail(library + " is no ONNX Runtime");
    version_ = base()->GetVersionString();
    api_ = base()->GetApi(ORT_API_VERSION);
    if (!api_) fail("ONNX Runtime " + version_ + " is older than version " + std::to_string(ORT_API_VERSION) + " of its API");
    provider_ = find(provider);
    check(api_->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "edgegen", &env_));
    check(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
    check(api_->GetAllocatorWithDefaultOptions(&allocator_));
  }

  std::string runtime() const override {
    const std::string on = provider_ == PROVIDERS ? "" : std::string(", ") + provider_->name;
    return "onnxruntime " + version_ + " in C++" + on;
  }

  void load(unsigned threads) override {
    threads_ = threads;
    session_ = session(nullptr);
    size_t inputs, outputs;
    check(api_->SessionGetInputCount(session_, &inputs));
    check(api_->SessionGetOutputCount(session_, &outputs));
    for (size_t i = 0; i < inputs + outputs; ++i) {
      char* name;
      check(i < inputs ? api_->SessionGetInputName(session_, i, allocator_, &name)
                       : api_->SessionGetOutputName(session_, i - inputs, allocator_, &name));
      (i < inputs ? input_names_ : output_names_).push_back(name);  // for as long as the process lives
    }
    made_.assign(outputs, nullptr);
  }

  size_t threads() const override { return threads_; }

  void take(std::vector<Input> inputs) override {
    if (inputs.size() != input_names_.size()) fail("it takes " + std::to_string(input_names_.size()) + " inputs");
    for (OrtValue* value : values_) api_->ReleaseValue(value);
    values_.assign(inputs.size(), nullptr);
    inputs_ = std::move(inputs);
    for (size_t i = 0; i < inputs_.size(); ++i) {
      OrtTypeInfo* info;
      const OrtTensorTypeAndShapeInfo* tensor;
      ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
      check(api_->SessionGetInputTypeInfo(session_, i, &info));
      check(api_->CastTypeInfoToTensorInfo(info, &tensor));
      if (tensor) check(api_->GetTensorElementType(tensor, &type));
      api_->ReleaseTypeInfo(info);
      Input& input = inputs_[i];
      size_t nbytes = nbytes_of(type, std::string("the input ") + input_names_[i]);
      for (int64_t size : input.sizes) nbytes *= static_cast<size_t>(size);
      input.must_have(nbytes);
      check(api_->CreateTensorWithDataAsOrtValue(memory_, input.data.data(), nbytes, input.sizes.data(),
                                                 input.sizes.size(), type, &values_[i]));
    }
  }

  void infer() override { infer(session_); }

  Output first_output() const override {
    OrtValue* value = made_[0];
    OrtTensorTypeAndShapeInfo* info;
    ONNXTensorElementDataType type;
    size_t count;
    void* data;
    check(api_->GetTensorTypeAndShape(value, &info));
    check(api_->GetTensorElementType(info, &type));
    check(api_->GetTensorShapeElementCount(info, &count));
    api_->ReleaseTensorTypeAndShapeInfo(info);
    check(api_->GetTensorMutableData(value, &data));
    return {data, count * nbytes_of(type, "the first output")};
  }

  void trace(unsigned long runs, const std::string& file) override {
    OrtSession* traced = session(file.c_str());
    for (unsigned long i = 0; i < runs; ++i) infer(traced);
    char* written;
    check(api_->SessionEndProfiling(traced, allocator_, &written));
    if (std::rename(written, file.c_str())) fail(std::string("cannot rename ") + written);  // it adds the time to the name
    api_->ReleaseSession(traced);
  }

 private:
  const Provider* find(const std::string& name) const {
    const Provider* provider = nullptr;
    for (const Provider& known : PROVIDERS) {
      if (name == known.name) provider = &known;
    }
    if (!provider) fail("no such provider: " + name);
    char** available;
    int count;
    std::string names;
    check(api_->GetAvailableProviders(&available, &count));
    for (int i = 0; i < count; ++i) {
      if (std::string(available[i]) == provider->full) return provider;
      names += (i ? ", " : "") + std::string(available[i]);
    }
    fail("ONNX Runtime " + version_ + " (" + library_ + ") was built without the provider " + name + ", with " + names +
         "; EDGEGEN_ONNXRUNTIME names the folder of another build");
  }

  // A new session; with a profile, which it writes to a file of that name and the time.
  OrtSession* session(const char* profile) {
    OrtSessionOptions* options;
    check(api_->CreateSessionOptions(&options));
    check(api_->SetIntraOpNumThreads(options, static_cast<int>(threads_)));
    if (profile) check(api_->EnableProfiling(options, profile));
    add_provider(options);
    OrtSession* made;
    check(api_->CreateSession(env_, path_.c_str(), options, &made));
    api_->ReleaseSessionOptions(options);
    return made;
  }

  void add_provider(OrtSessionOptions* options) {
    const std::string name = provider_->name;
    if (name == "cpu") return;
    if (name == "nnapi") {
      const auto add = reinterpret_cast<AddNnapi>(dlsym(handle_, "OrtSessionOptionsAppendExecutionProvider_Nnapi"));
      if (!add) fail(library_ + " does not export how to add NNAPI");
      return check(add(options, 0));
    }
    if (name == "xnnpack") {  // it has threads of its own, which those of the session must not wait for in a loop
      check(api_->AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"));
    }
    const std::string threads = std::to_string(threads_);
    const char* key = name == "qnn" ? "backend_path" : "intra_op_num_threads";
    const char* value = name == "qnn" ? "libQnnHtp.so" : threads.c_str();
    check(api_->SessionOptionsAppendExecutionProvider(options, provider_->added, &key, &value, 1));
  }

  void infer(OrtSession* session) {
    for (OrtValue*& value : made_) {
      if (value) api_->ReleaseValue(value);
      value = nullptr;
    }
    check(api_->Run(session, nullptr, input_names_.data(), values_.data(), values_.size(), output_names_.data(),
                    made_.size(), made_.data()));
  }

  static size_t nbytes_of(ONNXTensorElementDataType type, const std::string& what) {
    switch (type) {
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL:
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
        return 1;
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16:
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16:
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16:
        return 2;
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32:
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
        return 4;
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64:
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
        return 8;
      default:
        fail(what + " is not of plain numbers (type " + std::to_string(type) + " of the C API)");
    }
  }

  void check(OrtStatus* status) const {
    if (status) fail(api_->GetErrorMessage(status));
  }

  std::string library_, path_, version_;
  void* handle_ = nullptr;
  const OrtApi* api_ = nullptr;
  const Provider* provider_ = nullptr;
  OrtEnv* env_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  OrtAllocator* allocator_ = nullptr;
  OrtSession* session_ = nullptr;
  unsigned threads_ = 1;
  std::vector<char*> input_names_, output_names_;
  std::vector<Input> inputs_;
  std::vector<OrtValue*> values_, made_;
};

int main(int count, char** arguments) {
  if (count != 5) fail("give NONCE LIBRARY PROVIDER MODEL.onnx");
  OnnxModel model(arguments[2], arguments[3], arguments[4]);
  return serve(arguments[1], model);
}
