// What all programs share. REAL is float or double. The emulator of the tests defines EMULATED and stands in for CUDA.

#ifndef REAL
#define REAL float
#endif
typedef REAL real;
typedef long long int64;
typedef unsigned int uint32;
typedef unsigned long long uint64;

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fc00000)
#endif

#ifndef EMULATED
// The block's dynamic shared memory, as an array of `type`.
#define DYNAMIC_SHARED(type, name)                                   \
    extern __shared__ __align__(128) unsigned char dynamic_shared[]; \
    type* name = reinterpret_cast<type*>(dynamic_shared)
#endif

// What many numbers are added in.
typedef double wide;

#define WARP 32
#define ALL_LANES 0xffffffffu

// NaN wins.
template <typename T> __device__ __forceinline__ T greater_of(T a, T b) { return (a > b || a != a) ? a : b; }
template <typename T> __device__ __forceinline__ T lesser_of(T a, T b) { return (a < b || a != a) ? a : b; }

template <typename T> __device__ __forceinline__ T sign_of(T x) { return x > T(0) ? T(1) : x < T(0) ? T(-1) : x; }

template <typename T> __device__ __forceinline__ T sigmoid_of(T x) {
    T e = exp(-fabs(x));
    return (x >= T(0) ? T(1) : e) / (T(1) + e);
}

// x times the normal distribution function; -0 far below, where x may be -infinity.
template <typename T> __device__ __forceinline__ T gelu_of(T x) {
    return (x > T(-1e9) || x != x ? x : T(-1e9)) * normcdf(x);
}

struct Sum {
    template <typename T> static __device__ __forceinline__ T of(T a, T b) { return a + b; }
    template <typename T> static __device__ __forceinline__ T none() { return T(0); }
};
struct Max {
    template <typename T> static __device__ __forceinline__ T of(T a, T b) { return greater_of(a, b); }
    template <typename T> static __device__ __forceinline__ T none() { return T(-INFINITY); }
};
struct Min {
    template <typename T> static __device__ __forceinline__ T of(T a, T b) { return lesser_of(a, b); }
    template <typename T> static __device__ __forceinline__ T none() { return T(INFINITY); }
};

// Combined over the lanes of a warp, in every lane, in an order that does not change.
template <typename Op, typename T> __device__ __forceinline__ T warp_reduce(T value) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) value = Op::of(value, __shfl_xor_sync(ALL_LANES, value, step));
    return value;
}

// Combined over the threads of a block of full warps, in every thread. All threads must come here.
template <typename Op, typename T> __device__ __forceinline__ T block_reduce(T value) {
    __shared__ T parts[WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    value = warp_reduce<Op>(value);
    if (warps == 1) return value;
    __syncthreads();  // parts may still be read from the call before
    if (lane == 0) parts[warp] = value;
    __syncthreads();
    value = lane < warps ? parts[lane] : Op::template none<T>();
    return warp_reduce<Op>(value);
}

// Combined over `count` threads (a power of two) whose places are 0, 1, ... and whose numbers in the block lie `step`
// apart, in each of them, in an order that does not change. All threads of the block, up to 256, must come here.
template <typename Op, typename T> __device__ __forceinline__ T tree_reduce(T value, int place, int count, int step) {
    __shared__ T parts[256];
    int me = threadIdx.y * blockDim.x + threadIdx.x;
    __syncthreads();  // parts may still be read from the call before
    parts[me] = value;
    for (int half = count / 2; half > 0; half /= 2) {
        __syncthreads();
        if (place < half) parts[me] = Op::of(parts[me], parts[me + half * step]);
    }
    __syncthreads();
    return parts[me - place * step];
}

// a / b for numbers that are not negative; b > 0.
__device__ __forceinline__ int64 quotient(int64 a, int64 b) {
    return ((a | b) >> 32) == 0 ? int64(uint32(a) / uint32(b)) : a / b;
}

// Where element i of a walk over two axes lies, the inner of which has `side` elements; 0: there is but the inner one.
__device__ __forceinline__ int64 place_of(int64 i, int64 side, int64 outer, int64 inner) {
    if (side == 0) return i * inner;
    int64 q = quotient(i, side);
    return q * outer + (i - q * side) * inner;
}
