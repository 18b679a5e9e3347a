// A plug-in of QEMU 10: the AArch64 instructions that a program executed, by class.
//
//   qemu-aarch64 -plugin ./instruction_classes.so,out=FILE PROGRAM
//
// FILE gets the names of the classes, and then a line of their counts so far before each write to the standard output:
// a program that answers commands is counted command by command. The last line is written at the program's end.
//
// An instruction is decoded once, when QEMU translates its block; whenever the block is executed, it adds how many it
// has of each class.
#include <qemu-plugin.h>
#include <stdio.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

enum { WRITE = 64, WRITEV = 66, STANDARD_OUTPUT = 1 };  // Linux' numbers of system calls on AArch64

enum Class {
  INTEGER,  // addresses and comparisons, too
  BRANCH,
  SYSTEM,  // system calls, barriers, hints
  LOAD,    // into general registers; prefetches, and what reads and writes at once
  STORE,
  VECTOR_LOAD,  // into registers of vectors, or of scalar floats
  VECTOR_STORE,
  SCALAR_FLOAT,    // conversions from and to integers, too
  FLOAT_MULTIPLY,  // of vectors, with or without adding: fmul, fmla, fmls
  DOT_PRODUCT,     // of four 8-bit numbers a lane: sdot, udot
  OTHER_VECTOR,
  UNKNOWN,  // what a Cortex-A76 does not have
  CLASSES
};

static const char *const NAMES[CLASSES] = {
    "integer",      "branch",       "system",         "load",        "store",        "vector_load",
    "vector_store", "scalar_float", "float_multiply", "dot_product", "other_vector", "unknown"};

// The first row that an instruction fits decides. Encodings: Arm Architecture Reference Manual for A-profile
// (DDI 0487), chapter C4.1, "A64 instruction set encoding"; the section's title is beside the rows.
static const struct {
  uint32_t mask, value;
  enum Class class;
} ROWS[] = {
    {0x1c000000, 0x10000000, INTEGER},  // Data processing -- immediate
    {0x0e000000, 0x0a000000, INTEGER},  // Data processing -- register
    {0xff000000, 0xd4000000, SYSTEM},   // Exception generation
    {0xffc00000, 0xd5000000, SYSTEM},   // Hints, barriers, system registers
    {0x1c000000, 0x14000000, BRANCH},   // Branches

    {0xbe400000, 0x0c000000, VECTOR_STORE},  // Advanced SIMD load/store structures: st1 .. st4
    {0xbe400000, 0x0c400000, VECTOR_LOAD},
    {0x3fa00000, 0x08a00000, LOAD},  // Compare and swap
    {0xbfa00000, 0x08200000, LOAD},  // Compare and swap pair
    {0x3f400000, 0x08000000, STORE},  // Load/store exclusive, ordered
    {0x3f400000, 0x08400000, LOAD},
    {0x3f000000, 0x18000000, LOAD},  // Load register (literal)
    {0x3f000000, 0x1c000000, VECTOR_LOAD},
    {0x3e400000, 0x28000000, STORE},  // Load/store register pair
    {0x3e400000, 0x28400000, LOAD},
    {0x3e400000, 0x2c000000, VECTOR_STORE},
    {0x3e400000, 0x2c400000, VECTOR_LOAD},
    {0x3f200c00, 0x38200000, LOAD},  // Atomic memory operations
    {0x3ec00000, 0x38000000, STORE},  // Load/store register: immediate, unprivileged, register offset
    {0x3e000000, 0x38000000, LOAD},
    {0x3ec00000, 0x3c000000, VECTOR_STORE},
    {0x3ec00000, 0x3c800000, VECTOR_STORE},  // of 128 bits
    {0x3e000000, 0x3c000000, VECTOR_LOAD},

    {0x5e000000, 0x1e000000, SCALAR_FLOAT},    // Floating-point, and its conversions
    {0x9fe0fc00, 0x0e809400, DOT_PRODUCT},     // Advanced SIMD three-register extension: sdot, udot
    {0x9fc0f400, 0x0f80e000, DOT_PRODUCT},     // Advanced SIMD vector x indexed element: sdot, udot
    {0xbf00b400, 0x0f001000, FLOAT_MULTIPLY},  // fmla, fmls
    {0x9f00f400, 0x0f009000, FLOAT_MULTIPLY},  // fmul, fmulx
    {0xbf20fc00, 0x0e20cc00, FLOAT_MULTIPLY},  // Advanced SIMD three same: fmla, fmls
    {0x9fa0fc00, 0x0e20dc00, FLOAT_MULTIPLY},  // fmul, fmulx
    {0xbf60fc00, 0x0e400c00, FLOAT_MULTIPLY},  // Advanced SIMD three same (FP16): fmla, fmls
    {0x9fe0fc00, 0x0e401c00, FLOAT_MULTIPLY},  // fmul, fmulx
    {0x0e000000, 0x0e000000, OTHER_VECTOR},    // The rest of Advanced SIMD
    {0x00000000, 0x00000000, UNKNOWN},
};

static struct qemu_plugin_scoreboard *counts;  // for each thread one number a class
static FILE *out;

static enum Class class_of(uint32_t instruction) {
  size_t row = 0;
  while ((instruction & ROWS[row].mask) != ROWS[row].value) ++row;
  return ROWS[row].class;
}

static qemu_plugin_u64 counter(enum Class class) {
  return (qemu_plugin_u64){counts, class * sizeof(uint64_t)};
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  uint64_t found[CLASSES] = {0};
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); ++i) {
    uint32_t instruction = 0;
    qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i), &instruction, sizeof instruction);
    ++found[class_of(instruction)];
  }
  for (enum Class class = 0; class < CLASSES; ++class) {
    if (found[class]) {
      qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(block, QEMU_PLUGIN_INLINE_ADD_U64, counter(class), found[class]);
    }
  }
}

static void note(void) {
  for (enum Class class = 0; class < CLASSES; ++class) {
    fprintf(out, "%s%" PRIu64, class ? " " : "", qemu_plugin_u64_sum(counter(class)));
  }
  fputc('\n', out);
  fflush(out);
}

static void called(qemu_plugin_id_t id, unsigned int thread, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                   uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  if ((number == WRITE || number == WRITEV) && a1 == STANDARD_OUTPUT) note();
}

static void ended(qemu_plugin_id_t id, void *data) {
  note();
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
  if (strcmp(info->target_name, "aarch64") || argc != 1 || strncmp(argv[0], "out=", 4)) {
    fprintf(stderr, "instruction_classes: for qemu-aarch64, with out=FILE\n");
    return 1;
  }
  out = fopen(argv[0] + 4, "w");
  if (!out) {
    perror(argv[0] + 4);
    return 1;
  }
  for (enum Class class = 0; class < CLASSES; ++class) fprintf(out, "%s%s", class ? " " : "", NAMES[class]);
  fputc('\n', out);
  counts = qemu_plugin_scoreboard_new(CLASSES * sizeof(uint64_t));
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  qemu_plugin_register_atexit_cb(id, ended, NULL);
  return 0;
}
