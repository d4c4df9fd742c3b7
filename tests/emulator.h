// CUDA on the host, for tests: the threads of a block are fibers that take turns in a random order, blocks run one
// after another, in a random order too. What is undefined on a GPU is made to show: shared memory starts as NaN in each
// block, and behind its end is none. What a GPU refuses ends the process with a message: a barrier that not all threads
// reach, lanes that a warp lacks, sizes beyond its limits.
#pragma once
#define EMULATED 1

#include <sys/mman.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>
#ifdef __SSE2__
#include <immintrin.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __shared__ static
#define __constant__ static
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__

struct dim3 {
    unsigned x, y, z;
};
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emulator {

constexpr size_t STACK = 256 << 10;
constexpr int LANES = 32;
constexpr unsigned MOST_STATIC = 48 << 10, MOST_DYNAMIC = 227 << 10;  // bytes of shared memory of a block

struct Barrier {
    int waiting = 0;
    long generation = 0;
};

// One to shared memory that a thread has begun (cp.async), and the number of its group.
struct Copy {
    void* to;
    const void* from;
    int bytes;
    bool valid;
    int group;
    bool carried_out = false;

    void carry_out() {
        if (!carried_out) valid ? memcpy(to, from, bytes) : memset(to, 0, bytes);
        carried_out = true;
    }
};

struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(STACK);
    bool done = false;
    std::vector<Copy> copies;
    int group = 0;
    std::vector<std::pair<uintptr_t, int>> arrived;  // copies that it has waited for since its last fence
    long products = 0;                               // that it has issued
    int groups_of_products = 0;
};

inline std::vector<Fiber*> fibers;
inline ucontext_t scheduler;
inline int current, threads, live;
inline long progress;
inline Barrier block_barrier;
inline std::vector<Barrier> warp_barriers;
inline std::vector<int> live_lanes;
inline std::vector<uint64_t> exchange;
constexpr size_t PAGE = 4096, WINDOW = 236 << 10;
inline unsigned char* const shared_window = [] {  // of which a block has the end; behind it lies a page that nobody may touch
    void* pages = mmap(nullptr, WINDOW + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned char* found = static_cast<unsigned char*>(pages);
    mprotect(found + WINDOW, PAGE, PROT_NONE);
    return found;
}();
inline unsigned char* dynamic;
inline unsigned dynamic_size, static_size;
inline long block_number;
inline std::function<void()> body;
inline uint64_t state = 1;

inline unsigned random() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return unsigned(state >> 33);
}

inline void require(bool met, const char* what) {
    if (met) return;
    fprintf(stderr, "emulator: %s\n", what);
    abort();
}

// Comes with the declaration of an array in shared memory, which is undefined when the first thread of a block gets there.
inline void undefined(void* array, size_t size, long& block) {
    if (block == block_number) return;
    block = block_number;
    memset(array, 0xff, size);
    static_size += size;
    require(static_size <= MOST_STATIC && static_size + dynamic_size <= MOST_DYNAMIC, "too much shared memory");
}

// The dynamic shared memory of a block; its address is a multiple of 128, as little as what the GPU promises.
inline unsigned char* dynamic_memory(unsigned size) {
    require(size <= MOST_DYNAMIC, "too much dynamic shared memory");
    return shared_window + WINDOW - (size + 127) / 128 * 128;
}

}  // namespace emulator

inline dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace emulator {

inline void place() {
    threadIdx = {current % blockDim.x, current / blockDim.x % blockDim.y, current / (blockDim.x * blockDim.y)};
}

inline void yield() {
    int me = current;
    swapcontext(&fibers[me]->context, &scheduler);
    current = me;
    place();
}

inline void release(Barrier& barrier) {
    barrier.waiting = 0;
    barrier.generation++;
    progress++;
}

inline void wait(Barrier& barrier, int all) {
    if (++barrier.waiting == all) {
        release(barrier);
        return;
    }
    long generation = barrier.generation;
    while (barrier.generation == generation) yield();
}

inline void start() {
    body();
    int warp = current / LANES;
    fibers[current]->done = true;
    live--, live_lanes[warp]--, progress++;
    if (live && block_barrier.waiting == live) release(block_barrier);
    if (live_lanes[warp] && warp_barriers[warp].waiting == live_lanes[warp]) release(warp_barriers[warp]);
    swapcontext(&fibers[current]->context, &scheduler);
}

inline void begin_block();

inline void run_block() {
    live = threads;
    int warps = (threads + LANES - 1) / LANES;
    block_number++, static_size = 0;
    memset(dynamic, 0xff, dynamic_size);
    block_barrier = {};
    warp_barriers.assign(warps, {});
    live_lanes.assign(warps, LANES);
    if (threads % LANES) live_lanes.back() = threads % LANES;
    exchange.assign(warps * LANES, 0);
    begin_block();
    std::vector<int> order(threads);
    for (int i = 0; i < threads; i++) {
        order[i] = i;
        if (int(fibers.size()) <= i) fibers.push_back(new Fiber);
        Fiber& fiber = *fibers[i];
        fiber.done = false;
        fiber.copies.clear();
        fiber.arrived.clear();
        fiber.group = fiber.products = fiber.groups_of_products = 0;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, start, 0);
    }
    while (live) {
        for (int i = threads - 1; i > 0; i--) std::swap(order[i], order[random() % (i + 1)]);
        long before = progress;
        for (int i : order) {
            if (fibers[i]->done) continue;
            current = i;
            place();
            swapcontext(&scheduler, &fibers[i]->context);
        }
        if (live && progress == before) {
            fprintf(stderr, "emulator: %d of %d threads wait at a barrier that the others do not reach\n", live, threads);
            abort();
        }
    }
}

// While one lives, denormal numbers count as zero if `yes`: CuPy compiles programs so that they do in float.
struct Flushing {
#ifdef __SSE2__
    unsigned before = _mm_getcsr();
    explicit Flushing(bool yes) { _mm_setcsr(yes ? before | 0x8040 : before); }
    ~Flushing() { _mm_setcsr(before); }
#else
    explicit Flushing(bool) {}
#endif
};

// most: threads that the kernel is compiled for.
inline void run(dim3 grid, dim3 block, unsigned shared, unsigned most, std::function<void()> kernel) {
    body = std::move(kernel);
    gridDim = grid, blockDim = block, threads = block.x * block.y * block.z;
    dynamic = dynamic_memory(shared), dynamic_size = shared;
    require(threads > 0 && threads <= int(most) && most <= 1024 && block.z <= 64, "too many threads in a block");
    require(grid.x < 1u << 31 && grid.y < 1u << 16 && grid.z < 1u << 16, "too many blocks along an axis");
    std::vector<uint64_t> order(uint64_t(grid.x) * grid.y * grid.z);
    for (uint64_t i = 0; i < order.size(); i++) {
        uint64_t other = random() % (i + 1);
        order[i] = order[other], order[other] = i;
    }
    for (uint64_t i : order) {
        blockIdx = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
        run_block();
    }
}

template <typename... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::decay_t<A>*>(arguments[I])...);
}

template <typename... A> int parameters(void (*)(A...)) { return sizeof...(A); }

template <typename... A> void call(void (*kernel)(A...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<A...>{});
}

// The warp of this thread, of which all lanes have to be there.
inline int full_warp() {
    int warp = current / LANES;
    require(live_lanes[warp] == LANES, "a warp lacks lanes that are asked for");
    return warp;
}

// The value that lane `from` of this warp gives.
template <typename T> T shuffle(T value, int from) {
    static_assert(sizeof(T) <= 8);
    int warp = full_warp();
    uint64_t word = 0;
    memcpy(&word, &value, sizeof value);
    exchange[current] = word;
    wait(warp_barriers[warp], live_lanes[warp]);
    memcpy(&value, &exchange[warp * LANES + from], sizeof value);
    wait(warp_barriers[warp], live_lanes[warp]);
    return value;
}

// f(what all lanes of this warp gave), once they have.
template <typename T, typename F> void together(const T& mine, F f) {
    static std::vector<T> given(1024);
    Barrier& barrier = warp_barriers[full_warp()];
    given[current] = mine;
    wait(barrier, live_lanes[current / LANES]);
    f(&given[current / LANES * LANES]);
    wait(barrier, live_lanes[current / LANES]);
}

// Whether bytes of shared memory, 16 by 16, have been written by copies that no fence has shown to the tensor cores.
inline std::vector<char> hidden(WINDOW / 16);

inline void hide(uintptr_t first, int bytes, bool yes) {
    uintptr_t window = uintptr_t(shared_window);
    if (first < window || first >= window + WINDOW) return;
    for (uintptr_t at = first - window; at < first - window + bytes; at++) hidden[at / 16] = yes;
}

// A copy is carried out at some time between its beginning and the wait for it: here, at one or the other.
inline void begin_copy(void* to, const void* from, int bytes, bool valid) {
    if ((uintptr_t(to) | (valid ? uintptr_t(from) : 0)) % bytes) {
        fprintf(stderr, "emulator: a copy of %d bytes is not aligned to them\n", bytes);
        abort();
    }
    Copy copy = {to, from, bytes, valid, fibers[current]->group};
    hide(uintptr_t(to), bytes, true);
    if (random() % 2) copy.carry_out();
    fibers[current]->copies.push_back(copy);
}
inline void commit_copies() { fibers[current]->group++; }
inline void wait_for_copies(int open) {
    Fiber& me = *fibers[current];
    std::vector<Copy> later;
    for (Copy& copy : me.copies) {
        if (copy.group >= me.group - open) {
            later.push_back(copy);
        } else {
            copy.carry_out();
            me.arrived.push_back({uintptr_t(copy.to), copy.bytes});
        }
    }
    me.copies = later;
}
inline void fence_proxy() {
    for (auto& [first, bytes] : fibers[current]->arrived) hide(first, bytes, false);
    fibers[current]->arrived.clear();
}

#include "emulator_hopper.h"

}  // namespace emulator

#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulator::dynamic)

inline void __syncthreads() { emulator::wait(emulator::block_barrier, emulator::live); }
inline void __syncwarp(unsigned = ~0u) {
    int warp = emulator::full_warp();
    emulator::wait(emulator::warp_barriers[warp], emulator::live_lanes[warp]);
}
template <typename T> T __shfl_xor_sync(unsigned, T value, int mask) {
    return emulator::shuffle(value, (emulator::current % 32) ^ mask);
}
template <typename T> T __shfl_down_sync(unsigned, T value, int step) {
    int lane = emulator::current % 32;
    return emulator::shuffle(value, lane + step < 32 ? lane + step : lane);
}
template <typename T> T __shfl_sync(unsigned, T value, int lane) { return emulator::shuffle(value, lane % 32); }
template <typename T> unsigned __match_any_sync(unsigned, T value) {
    unsigned equal = 0;
    for (int lane = 0; lane < emulator::LANES; lane++) equal |= unsigned(emulator::shuffle(value, lane) == value) << lane;
    return equal;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline void sincospi(double x, double* s, double* c) {
    double a = 3.14159265358979323846 * x;
    *s = std::sin(a), *c = std::cos(a);
}
inline void sincospif(float x, float* s, float* c) {
    double a, b;
    sincospi(double(x), &a, &b);
    *s = float(a), *c = float(b);
}
template <typename T> T __ldg(const T* p) { return *p; }
template <typename T> T atomicAdd(T* p, T value) {
    T before = *p;
    *p += value;
    return before;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
inline float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
inline float normcdf(float x) { return 0.5f * std::erfc(-x * 0.70710678f); }
inline double normcdf(double x) { return 0.5 * std::erfc(-x * 0.7071067811865476); }
inline float normcdff(float x) { return normcdf(x); }
inline float rsqrt(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline float rsqrtf(float x) { return rsqrt(x); }
inline void __threadfence() {}
using std::abs, std::ceil, std::cos, std::erf, std::exp, std::expm1, std::fabs, std::floor, std::fma, std::isnan;
using std::log, std::log1p, std::pow, std::sin, std::sqrt, std::tanh;
template <typename T> T min(T a, T b) { return b < a ? b : a; }
template <typename T> T max(T a, T b) { return a < b ? b : a; }
