// Runs a .pte on raw inputs, picture by picture, without Python or PyTorch: bench_arm.py builds it for ARM64.
//
//   pte_runner MODEL.pte OUTPUT.bin INPUT.bin...
//
// Each INPUT holds one input of the method "forward": pictures one after the other, as many as fit. OUTPUT gets the
// first output of each in turn. Against libexecutorch of the PyPI wheel; see bench_arm.py for the compiler's line.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

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

static int fail(const std::string& what) {
  std::fprintf(stderr, "pte_runner: %s\n", what.c_str());
  return 1;
}

int main(int count, char** arguments) {
  using executorch::extension::make_tensor_ptr;
  using executorch::extension::TensorPtr;
  if (count < 4) return fail("give MODEL.pte OUTPUT.bin INPUT.bin...");
  if (!dot_products_are_right()) return fail("this processor, or its emulator, multiplies 8-bit numbers wrongly");
  executorch::extension::Module module(arguments[1]);
  auto meta = module.method_meta("forward");
  if (!meta.ok()) return fail("no method 'forward' in " + std::string(arguments[1]));
  const size_t inputs = static_cast<size_t>(count - 3);
  if (meta->num_inputs() != inputs) return fail("it takes " + std::to_string(meta->num_inputs()) + " inputs");

  std::vector<std::vector<char>> given(inputs);
  size_t pictures = 0;
  for (size_t i = 0; i < inputs; ++i) {
    std::ifstream file(arguments[3 + i], std::ios::binary);
    given[i].assign(std::istreambuf_iterator<char>(file), {});
    const size_t each = meta->input_tensor_meta(i)->nbytes();
    if (given[i].empty() || given[i].size() % each || (i && given[i].size() / each != pictures)) {
      return fail("the inputs are not as many whole pictures");
    }
    pictures = given[i].size() / each;
  }
  std::ofstream output(arguments[2], std::ios::binary);
  for (size_t picture = 0; picture < pictures; ++picture) {
    std::vector<TensorPtr> tensors;
    std::vector<executorch::runtime::EValue> values;
    for (size_t i = 0; i < inputs; ++i) {
      auto about = *meta->input_tensor_meta(i);
      std::vector<executorch::aten::SizesType> sizes(about.sizes().begin(), about.sizes().end());
      tensors.push_back(make_tensor_ptr(sizes, given[i].data() + picture * about.nbytes(), about.scalar_type()));
      values.emplace_back(*tensors.back());
    }
    auto made = module.execute("forward", values);
    if (!made.ok()) return fail("it does not run: error " + std::to_string(static_cast<int>(made.error())));
    const auto& picture_made = made->at(0).toTensor();
    output.write(static_cast<const char*>(picture_made.const_data_ptr()), picture_made.nbytes());
  }
  output.close();
  return output ? 0 : fail("the output cannot be written");
}
