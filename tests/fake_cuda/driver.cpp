// The calls of CUDA's driver that CuPy makes: modules, kernels and their launches, which the emulator carries out.
#include "cubin.h"
#include "device.h"

#include <dlfcn.h>

#include <cstdio>
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

using namespace fake;

struct Module {
    void* library = nullptr;
    std::map<std::string, Kernel> kernels;
};

static std::set<CUmodule> modules;
// The library that the emulator has made of the source of the next module of this thread; empty if it could not.
static thread_local std::string next_library;

constexpr int ARCHITECTURE = 90;
constexpr size_t SHARED = 48 << 10, SHARED_AT_MOST = 227 << 10;
constexpr int REGISTERS = 65536;

extern "C" void fake_next_module(const char* library) { next_library = library; }

// Bytes of each parameter of a kernel; how many there are.
extern "C" int fake_parameters(CUfunction function, int most, size_t* sizes) {
    auto& found = reinterpret_cast<Kernel*>(function)->parameters;
    for (int i = 0; i < most && i < int(found.size()); i++) sizes[i] = found[i];
    return int(found.size());
}

extern "C" {

CUresult cuGetErrorName(CUresult error, const char** text) {
    static const std::map<int, const char*> names = {
        {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
        {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
        {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
        {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
        {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"},
        {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
        {CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"},
    };
    auto found = names.find(error);
    *text = found == names.end() ? "CUDA_ERROR" : found->second;
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char** text) {
    *text = error == CUDA_ERROR_NOT_SUPPORTED ? "the emulator cannot run this kernel" : "of the fake driver";
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext* found) {
    *found = reinterpret_cast<CUcontext>(context ? &modules : nullptr);
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice* device) { return *device = 0, CUDA_SUCCESS; }

CUresult cuModuleLoadData(CUmodule* handle, const void* image) {
    LOCKED;
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    int architecture = 0;
    auto made = std::make_unique<Module>();
    made->kernels = kernels(image, architecture);
    std::string library = std::exchange(next_library, "");
    if (!architecture) return CUDA_ERROR_INVALID_IMAGE;
    if (architecture != ARCHITECTURE) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    if (!library.empty()) {
        made->library = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!made->library) fprintf(stderr, "fake CUDA: %s\n", dlerror());
    }
    for (auto& [name, kernel] : made->kernels) {
        kernel.dynamic = SHARED - std::min(SHARED, kernel.shared);
        if (!made->library) continue;
        *reinterpret_cast<void**>(&kernel.start) = dlsym(made->library, ("emulate_" + name).c_str());
    }
    *handle = reinterpret_cast<CUmodule>(made.release());
    modules.insert(*handle);
    return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule handle) {
    LOCKED;
    if (!modules.erase(handle)) return CUDA_ERROR_INVALID_HANDLE;
    run_all();
    delete reinterpret_cast<Module*>(handle);  // what the emulator has made stays: its state is shared
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule handle, const char* name) {
    LOCKED;
    if (!modules.count(handle)) return CUDA_ERROR_INVALID_HANDLE;
    auto& found = reinterpret_cast<Module*>(handle)->kernels;
    auto kernel = found.find(name);
    if (kernel == found.end()) return CUDA_ERROR_NOT_FOUND;
    *function = reinterpret_cast<CUfunction>(&kernel->second);
    return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction function) {
    auto& kernel = *reinterpret_cast<Kernel*>(function);
    switch (attribute) {
        case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: return *value = kernel.threads, CUDA_SUCCESS;
        case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: return *value = int(kernel.shared), CUDA_SUCCESS;
        case CU_FUNC_ATTRIBUTE_NUM_REGS: return *value = kernel.registers, CUDA_SUCCESS;
        case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: return *value = int(kernel.dynamic), CUDA_SUCCESS;
        case CU_FUNC_ATTRIBUTE_BINARY_VERSION: return *value = ARCHITECTURE, CUDA_SUCCESS;
        default: return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    LOCKED;
    auto& kernel = *reinterpret_cast<Kernel*>(function);
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0) return CUDA_ERROR_INVALID_VALUE;
    if (size_t(value) + kernel.shared > SHARED_AT_MOST) return CUDA_ERROR_INVALID_VALUE;
    kernel.dynamic = value;
    return CUDA_SUCCESS;
}

static CUresult refused(const Kernel& kernel, const unsigned* sizes, size_t shared) {
    auto [gx, gy, gz, x, y, z] = *reinterpret_cast<const std::array<unsigned, 6>*>(sizes);
    if (!gx || !gy || !gz || gx > 0x7fffffff || gy > 65535 || gz > 65535) return CUDA_ERROR_INVALID_VALUE;
    if (!x || !y || !z || x > 1024 || y > 1024 || z > 64) return CUDA_ERROR_INVALID_VALUE;
    if (size_t(x) * y * z > size_t(kernel.threads) || shared > kernel.dynamic) return CUDA_ERROR_INVALID_VALUE;
    // Registers are given to warps in units of 256.
    size_t warps = (size_t(x) * y * z + 31) / 32, each = (kernel.registers * 32 + 255) / 256 * 256;
    return warps * each > REGISTERS ? CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES : CUDA_SUCCESS;
}

// Arguments of a launch, copied; each aligned as any type may want.
struct Launch {
    const Kernel* kernel;
    std::array<unsigned, 7> sizes;  // of grid and block, and bytes of dynamic shared memory
    std::vector<std::vector<std::max_align_t>> arguments;

    void operator()() {
        std::vector<void*> pointers;
        for (auto& each : arguments) pointers.push_back(each.data());
        kernel->start(sizes.data(), pointers.data());
    }
};

CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned x, unsigned y, unsigned z,
                        unsigned shared, CUstream handle, void** parameters, void** extra) {
    LOCKED;
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    StreamPointer stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    Launch launch{reinterpret_cast<Kernel*>(function), {gx, gy, gz, x, y, z, shared}, {}};
    if (CUresult error = refused(*launch.kernel, launch.sizes.data(), shared)) return error;
    if (extra) return CUDA_ERROR_INVALID_VALUE;
    if (!launch.kernel->start) {
        fprintf(stderr, "fake CUDA: the emulator cannot run %s\n", launch.kernel->name.c_str());
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    for (size_t i = 0; i < launch.kernel->parameters.size(); i++) {
        size_t size = launch.kernel->parameters[i];
        auto& copy = launch.arguments.emplace_back(size / sizeof(std::max_align_t) + 1);
        memcpy(copy.data(), parameters[i], size);
    }
    return CUresult(enqueue(stream, std::move(launch)));
}

}  // extern "C"
