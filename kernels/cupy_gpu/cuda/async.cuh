// Copies from global to shared memory that go on while their thread does (cp.async). Those of a thread since its last
// commit are a group. What has arrived is seen by other threads after a barrier.

#ifdef EMULATED
template <int BYTES> void copy_async(void* to, const void* from, bool valid) {
    emulator::begin_copy(to, from, BYTES, valid);
}
inline void commit_copies() { emulator::commit_copies(); }
template <int OPEN> void wait_for_copies() { emulator::wait_for_copies(OPEN); }
#else
// BYTES (4, 8 or 16, to which both addresses are aligned) from `from`, or zeros if not valid; `from` is not read then.
template <int BYTES> __device__ __forceinline__ void copy_async(void* to, const void* from, bool valid) {
    uint32 address = uint32(__cvta_generic_to_shared(to));
    int bytes = valid ? BYTES : 0;
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(from), "n"(BYTES), "r"(bytes)
                     : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all groups but the last OPEN have arrived.
template <int OPEN> __device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(OPEN) : "memory");
}
#endif
