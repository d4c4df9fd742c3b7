// What a cubin tells about its kernels.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace fake {

struct Kernel {
    std::string name;
    std::vector<size_t> parameters;  // bytes of each
    int registers = 0;
    int threads = 1024;   // of a block at most (__launch_bounds__)
    size_t shared = 0;    // static
    size_t dynamic = 0;   // that a launch may ask for
    void (*start)(const unsigned* sizes, void** arguments) = nullptr;
};

// The kernels of a cubin by name, none if it is no cubin; `architecture` is its: 90.
std::map<std::string, Kernel> kernels(const void* image, int& architecture);

}  // namespace fake
