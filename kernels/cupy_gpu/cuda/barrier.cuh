// Barriers in shared memory that count arrivals (mbarrier), for threads that do different work. A barrier passes through
// phases 0, 1, 0, ...: one ends when `count` arrivals have come, and what was written before these is seen then.

#ifdef EMULATED
inline void init_barrier(uint64* barrier, int count) { emulator::init_barrier(barrier, count); }
inline void arrive(uint64* barrier) { emulator::arrive(barrier); }
inline void wait(uint64* barrier, uint32 phase) { emulator::wait_for_phase(barrier, phase); }
#else
__device__ __forceinline__ uint32 shared_address(const void* p) { return uint32(__cvta_generic_to_shared(p)); }

// By one thread; the others know of it after a __syncthreads.
__device__ __forceinline__ void init_barrier(uint64* barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}
__device__ __forceinline__ void arrive(uint64* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Until the present phase is not `phase`.
__device__ __forceinline__ void wait(uint64* barrier, uint32 phase) {
    uint32 done;
    do {
        asm volatile(
            "{\n"
            ".reg .pred done;\n"
            "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
            "selp.u32 %0, 1, 0, done;\n"
            "}"
            : "=r"(done)
            : "r"(shared_address(barrier)), "r"(phase)
            : "memory");
    } while (!done);
}
#endif
