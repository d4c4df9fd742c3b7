// Rows of a matrix that a group of GROUP threads works on together: neighbours in a warp, or a whole block.

#ifndef GROUP
#define GROUP 32
#define EACH 4  // elements of a thread, which stay in registers; 0: any number, read again each time
#endif

#define ROW_THREADS (GROUP > 128 ? GROUP : 128)  // of a block

// What the numbers of a row are added in: those of a thread are few, or not.
#if EACH
typedef real total;
#else
typedef wide total;
#endif

// The row of this thread's group; the first element of the row that is its own.
__device__ __forceinline__ int64 group_row() { return int64(blockIdx.x) * (blockDim.x / GROUP) + threadIdx.x / GROUP; }
__device__ __forceinline__ int group_lane() { return threadIdx.x % GROUP; }

// Combined over the threads of a group, in each of them, in an order that does not change.
template <typename Op, typename T> __device__ __forceinline__ T group_reduce(T value) {
#if GROUP > WARP
    return block_reduce<Op>(value);
#else
#pragma unroll
    for (int step = GROUP / 2; step > 0; step /= 2) value = Op::of(value, __shfl_xor_sync(ALL_LANES, value, step));
    return value;
#endif
}

// The elements of one row.
struct Row {
    const real* first;
    int64 step, count;
    real held[EACH ? EACH : 1];

    __device__ __forceinline__ Row(const real* first, int64 step, int64 count)
        : first(first), step(step), count(count) {
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            int j = group_lane() + k * GROUP;
            held[k] = j < count ? first[j * step] : real(0);
        }
    }

    // f(place, element) for the elements of this thread.
    template <typename F> __device__ __forceinline__ void each(F f) {
#if EACH
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            int j = group_lane() + k * GROUP;
            if (j < count) f(j, held[k]);
        }
#else
#pragma unroll 4
        for (int64 j = group_lane(); j < count; j += GROUP) f(j, first[j * step]);
#endif
    }

    // The same, where f gives what takes the element's place (as long as it is held).
    template <typename F> __device__ __forceinline__ void change(F f) {
#if EACH
        each([&](int64 j, real& v) { v = f(j, v); });
#else
        each([&](int64 j, real v) { f(j, v); });
#endif
    }
};

// f(place, a's element, b's element) for the elements of this thread; both rows are equally long.
template <typename F> __device__ __forceinline__ void each_pair(Row& a, Row& b, F f) {
#if EACH
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        int j = group_lane() + k * GROUP;
        if (j < a.count) f(j, a.held[k], b.held[k]);
    }
#else
#pragma unroll 4
    for (int64 j = group_lane(); j < a.count; j += GROUP) f(j, a.first[j * a.step], b.first[j * b.step]);
#endif
}
