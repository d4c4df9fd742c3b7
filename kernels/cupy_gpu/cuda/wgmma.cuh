// Products by the tensor cores of sm_90a, made by a warpgroup (4 warps) from operands in shared memory while its threads
// go on: d (64, TILE_N) += a (64, K) b (K, TILE_N), where K numbers have 32 bytes.
//
// In shared memory an operand is made of rows of 128 bytes, 8 of them from an address that is a multiple of 1024, whose
// pieces of 16 bytes are swapped: piece i of row r lies at i ^ r % 8. A row holds
//     K inside     one side (m or n), and what follows along k;         8 sides are SPAN bytes apart from the next 8
//     side inside  one k, and 64 sides (numbers of 2 bytes only);       8 k are SPAN bytes apart from the next 8,
//                                                                       64 sides LEAP bytes from the next 64
// d is spread over the threads like that of mma.cuh: thread t holds rows t / 32 * 16 + t % 32 / 4 and 8 more, of columns
// 8 j + t % 4 * 2 and 1 more, as d[4 j], d[4 j + 1] and, 8 rows below, d[4 j + 2], d[4 j + 3].
//
// a may be in registers as well, those of mma.cuh for each 16 rows.
//
// Macros: TILE_N. A_K_INSIDE, B_K_INSIDE. A_IN_REGISTERS. MULTIPLY, MULTIPLY_SUMS: the instruction, and d as its operands.

#define SPAN 1024

#ifdef EMULATED
inline uint32 shared_address(const void* p) { return emulator::shared_address(p); }
#endif

// Where an operand begins, with its steps.
__device__ __forceinline__ uint64 descriptor(uint32 address, int leap) {
    return uint64((address & 0x3ffffu) >> 4) | uint64(leap >> 4) << 16 | uint64(SPAN >> 4) << 32 | 1ull << 62;
}
// That of an operand which begins so many bytes later.
__device__ __forceinline__ uint64 later(uint64 operand, int bytes) { return operand + uint64(bytes >> 4); }

#ifdef EMULATED
inline void multiply(float (&d)[TILE_N / 2], uint64 a, uint64 b, bool add) {
    emulator::multiply<TENSOR == BF16, A_K_INSIDE, B_K_INSIDE>(d, TILE_N, a, b, add);
}
inline void multiply(float (&d)[TILE_N / 2], const uint32 (&a)[4], uint64 b, bool add) {
    emulator::multiply<TENSOR == BF16, A_K_INSIDE, B_K_INSIDE>(d, TILE_N, 0, b, add, a);
}
inline void begin_products() {}
inline void commit_products() { emulator::commit_products(); }
template <int OPEN> void wait_for_products() { emulator::wait_for_products(OPEN); }
inline void settle(float (&)[TILE_N / 2]) {}
inline void show_to_tensor_cores() { emulator::fence_proxy(); }
template <int COUNT> void more_registers() {}
template <int COUNT> void fewer_registers() {}
#else
// d = a b, plus d if `add`.
#if A_IN_REGISTERS
__device__ __forceinline__ void multiply(float (&d)[TILE_N / 2], const uint32 (&a)[4], uint64 b, bool add) {
    asm volatile(MULTIPLY : MULTIPLY_SUMS : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(add)));
}
#else
__device__ __forceinline__ void multiply(float (&d)[TILE_N / 2], uint64 a, uint64 b, bool add) {
    asm volatile(MULTIPLY : MULTIPLY_SUMS : "l"(a), "l"(b), "r"(int(add)));
}
#endif
// Before the first product since d was used otherwise.
__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until all groups of products but the last OPEN are done.
template <int OPEN> __device__ __forceinline__ void wait_for_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(OPEN) : "memory");
}
// Nothing reads d before this that comes after it.
__device__ __forceinline__ void settle(float (&d)[TILE_N / 2]) {
#pragma unroll
    for (int i = 0; i < TILE_N / 2; i++) asm volatile("" : "+f"(d[i])::"memory");
}
// What this thread has written to shared memory, and what it has waited for, is seen by products that begin later.
__device__ __forceinline__ void show_to_tensor_cores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Registers of each thread of this warpgroup from here on.
template <int COUNT> __device__ __forceinline__ void more_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT> __device__ __forceinline__ void fewer_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
#endif
