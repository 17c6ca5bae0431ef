// The chip as a C library: what ctypes needs, and nothing else.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "Vchip.h"
#include "Vchip___024root.h"

namespace {
struct Chip {
    VerilatedContext context;
    Vchip top{&context};
    void clock() {
        top.clk = 0;
        top.eval();
        top.clk = 1;
        top.eval();
    }
};
}  // namespace

extern "C" {
Chip* chip_new() { return new Chip; }

void chip_free(Chip* chip) { delete chip; }

void chip_write(Chip* chip, uint32_t address, const uint64_t* words, uint32_t count) {
    chip->top.write = 1;
    for (uint32_t i = 0; i < count; i++) {
        chip->top.address = address + i;
        chip->top.write_data = words[i];
        chip->clock();
    }
    chip->top.write = 0;
}

void chip_read(Chip* chip, uint32_t address, uint64_t* words, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        chip->top.address = address + i;
        chip->clock();
        words[i] = chip->top.read_data;
    }
}

void chip_fault(Chip* chip, const uint32_t* address, const uint64_t* stuck0, const uint64_t* stuck1, const uint64_t* flip,
                uint32_t count) {
    chip->top.fault_write = 1;
    for (uint32_t i = 0; i < count; i++) {
        chip->top.fault_address = address[i];
        chip->top.fault_stuck0 = stuck0[i];
        chip->top.fault_stuck1 = stuck1[i];
        chip->top.fault_flip = flip[i];
        chip->clock();
    }
    chip->top.fault_write = 0;
}

void chip_fault_sums(Chip* chip, const uint32_t* address, const uint32_t* stuck0, const uint32_t* stuck1, const uint32_t* flip,
                     uint32_t count) {
    chip->top.sum_fault_write = 1;
    for (uint32_t i = 0; i < count; i++) {
        chip->top.sum_address = address[i];
        chip->top.sum_stuck0 = stuck0[i];
        chip->top.sum_stuck1 = stuck1[i];
        chip->top.sum_flip = flip[i];
        chip->clock();
    }
    chip->top.sum_fault_write = 0;
}

void chip_start(Chip* chip, const int8_t* activations, uint32_t m, uint32_t k, uint32_t n, uint32_t weight_base) {
    chip->top.activation_write = 1;
    for (size_t i = 0, bytes = size_t(m) * k; i < bytes; i += 8) {
        uint64_t eight = 0;
        std::memcpy(&eight, activations + i, std::min<size_t>(8, bytes - i));
        chip->top.line = i / 8;
        chip->top.line_data = eight;
        chip->clock();
    }
    chip->top.activation_write = 0;
    chip->top.shape_m = m;
    chip->top.shape_k = k;
    chip->top.shape_n = n;
    chip->top.base = weight_base;
    chip->top.start = 1;
    chip->clock();
    chip->top.start = 0;
}

// At most this many cycles; 1 while there is more to do.
int chip_step(Chip* chip, uint64_t cycles) {
    while (cycles-- && chip->top.busy) chip->clock();
    return chip->top.busy;
}

void chip_finish(Chip* chip, int32_t* outputs, uint64_t* counters) {
    std::memcpy(outputs, &chip->top.rootp->chip__DOT__outputs[0], size_t(chip->top.shape_m) * chip->top.shape_n * sizeof(int32_t));
    counters[0] = chip->top.cycles;
    counters[1] = chip->top.weight_reads;
    counters[2] = chip->top.activation_reads;
    counters[3] = chip->top.output_writes;
    counters[4] = chip->top.output_reads;
}
}
