// The columns of a matrix, by blocks of (columns, rows) threads and chunks of rows: see columns.py.

#define EACH 4

// What this thread walks: every blockDim.y-th row of the block's chunk, in one column.
struct Walk {
    int64 column, start, stop;

    __device__ __forceinline__ Walk(int64 rows, int64 chunk)
        : column(int64(blockIdx.x) * blockDim.x + threadIdx.x), start(blockIdx.y * chunk + threadIdx.y),
          stop(blockIdx.y * chunk + chunk < rows ? blockIdx.y * chunk + chunk : rows) {}

    // f(row) for each row, EACH of them side by side.
    template <typename F> __device__ __forceinline__ void each(F f) const {
        int64 i = start;
        for (; i + (EACH - 1) * int64(blockDim.y) < stop; i += EACH * blockDim.y)
#pragma unroll
            for (int k = 0; k < EACH; k++) f(i + k * blockDim.y);
        for (; i < stop; i += blockDim.y) f(i);
    }
};

__device__ __forceinline__ wide down_columns(wide value) {
    return tree_reduce<Sum>(value, threadIdx.y, blockDim.y, blockDim.x);
}

struct Sums {
    wide first, second;
};

// Threads beyond the last column walk it once more, and write nothing.
#define WALK(rows)                             \
    Walk walk(rows, chunk);                    \
    bool inside = walk.column < width;         \
    if (!inside) walk.column = width - 1, walk.stop = walk.start;

// The sum of `chunks` partial sums; `chunk` is their number, too.
__device__ __forceinline__ Sums summed(const Walk& walk, const Sums* partial, int64 width) {
    Sums sums = {0, 0};
    walk.each([&](int64 i) {
        Sums part = partial[i * width + walk.column];
        sums.first += part.first;
        sums.second += part.second;
    });
    return {down_columns(sums.first), down_columns(sums.second)};
}

// The gradients for weight and bias, either of which may be null, from the sums of the chunks.
extern "C" __global__ void __launch_bounds__(256)
gradient_totals(const Sums* partial, real* weight_gradient, real* bias_gradient, int64 width, int64 chunk) {
    WALK(chunk)
    Sums sums = summed(walk, partial, width);
    if (!inside || threadIdx.y) return;
    if (bias_gradient) bias_gradient[walk.column] = real(sums.first);
    if (weight_gradient) weight_gradient[walk.column] = real(sums.second);
}
