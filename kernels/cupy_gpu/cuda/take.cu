// Rows gathered by their index; a row is a number of words of type WORD.

#ifndef WORD
#define WORD uint4
#endif

// i: a row of out; at: the source of the row.
#define COPY_ROWS(source_of)                                                             \
    int64 pace = int64(gridDim.x) * blockDim.x;                                          \
    for (int64 at = int64(blockIdx.x) * blockDim.x + threadIdx.x; at < n * words; at += pace) { \
        int64 i = quotient(at, words);                                                   \
        out[at] = x[(source_of) * words + (at - i * words)];                             \
    }

extern "C" __global__ void take(const WORD* x, const int64* index, WORD* out, int64 n, int64 words, int64 step) {
    COPY_ROWS(index[i * step])
}

extern "C" __global__ void take_batch(const WORD* x, const int64* order, const int64* cursor, WORD* out, int64 n,
                                      int64 words, int64 step, int64 count) {
    int64 start = *cursor;
    COPY_ROWS(order[(start + i < count ? start + i : count - 1) * step])
}
