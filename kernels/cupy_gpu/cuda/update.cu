// One optimizer step for all parameters of a group. What an optimizer computes is given by macros: see updates.py.

#ifndef ARRAYS
#define ARRAYS 2                                          // the parameter, its gradient, and its states
#define SCALARS 1                                         // numbers that are computed once, for each block
#define COMPUTE if (threadIdx.x == 0) scalars[0] = real(-values[1]);
#define NUMBERS real rate = scalars[0];                   // what the statements use
#define STATEMENTS own[0].v[j] += rate * own[1].v[j];     // for each element
#define SHARED 1                                          // whether all parameters take the same values
#define VALUES 2                                          // how many of them there are
#endif

#define CHUNK 1024  // elements that a block takes at a time
#define EACH 4      // and of them each thread

struct __align__(16) Pack {
    real v[EACH];
};

// A row of the table holds a parameter's size and the addresses of its arrays; after the rows, it has for each chunk
// the number of its parameter << 32 plus its own number within that. `each` parameters in turn take a row of values.
extern "C" __global__ void __launch_bounds__(256)
update(const int64* table, int64 parameters, int64 each, int64 chunks, const double* rows_of_values) {
    __shared__ real scalars[SCALARS];
#if SHARED
    const double* values = rows_of_values;
    COMPUTE
    __syncthreads();
    NUMBERS
#endif
    for (int64 k = blockIdx.x; k < chunks; k += gridDim.x) {
        int64 chunk = table[parameters * (1 + ARRAYS) + k];
#if !SHARED
        const double* values = rows_of_values + (chunk >> 32) / each * VALUES;
        __syncthreads();  // the scalars of the chunk before may still be read
        COMPUTE
        __syncthreads();
        NUMBERS
#endif
        const int64* row = table + (chunk >> 32) * (1 + ARRAYS);
        int64 at = (chunk & 0xffffffff) * CHUNK + threadIdx.x * EACH, left = row[0] - at;
        if (left <= 0) continue;
        real* arrays[ARRAYS];
        uint64 addresses = 0;
#pragma unroll
        for (int a = 0; a < ARRAYS; a++) {
            arrays[a] = reinterpret_cast<real*>(row[1 + a]) + at;
            addresses |= uint64(row[1 + a]);
        }
        bool packed = left >= EACH && addresses % 16 == 0;
        Pack own[ARRAYS];
#pragma unroll
        for (int a = 0; a < ARRAYS; a++) {
            if (packed) {
                own[a] = *reinterpret_cast<const Pack*>(arrays[a]);
            } else {
#pragma unroll
                for (int j = 0; j < EACH; j++) own[a].v[j] = j < left ? arrays[a][j] : real(0);
            }
        }
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            STATEMENTS
        }
#pragma unroll
        for (int a = 0; a < ARRAYS; a++) {
            if (a == 1) continue;  // the gradient stays as it is
            if (packed) {
                *reinterpret_cast<Pack*>(arrays[a]) = own[a];
            } else {
#pragma unroll
                for (int j = 0; j < EACH; j++)
                    if (j < left) arrays[a][j] = own[a].v[j];
            }
        }
    }
}
