// The place of the first maximum in each row of a matrix; NaN is greater than all.

struct Place {
    real value;
    int64 at;
};

struct First {
    static __device__ __forceinline__ Place of(Place a, Place b) {
        bool a_nan = a.value != a.value, b_nan = b.value != b.value;
        bool equal = a.value == b.value || (a_nan && b_nan);
        bool greater = a_nan ? !b_nan : a.value > b.value;
        return greater || (equal && a.at < b.at) ? a : b;
    }
};

// The threads of a row of the block share a row of x.
extern "C" __global__ void __launch_bounds__(256)
argmax(const real* x, int64* out, int64 rows, int64 columns, int64 row_step, int64 step) {
    int64 row = int64(blockIdx.x) * blockDim.y + threadIdx.y;
    Place best = {real(-INFINITY), 0x7fffffffffffffff};
    if (row < rows) {
#pragma unroll 4
        for (int64 j = threadIdx.x; j < columns; j += blockDim.x) {
            Place here = {x[row * row_step + j * step], j};
            best = First::of(best, here);
        }
    }
    best = tree_reduce<First>(best, threadIdx.x, blockDim.x, 1);
    if (threadIdx.x == 0 && row < rows) out[row] = best.at;
}
