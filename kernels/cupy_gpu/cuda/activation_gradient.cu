// The gradient of an activation, and its sums over the rows of a chunk: see columns.py for the layout.

#ifndef DERIVATIVE
#define DERIVATIVE (y > 0 ? g : 0)  // of the activation, times g, from its result y
#define TO real
#endif

#define EACH 4

extern "C" __global__ void __launch_bounds__(256)
activation_gradient(const real* gs, const real* ys, real* out, TO* sums, int64 rows, int64 width, int64 chunk,
                    int64 g_row, int64 g_step, int64 y_row, int64 y_step) {
    int64 j = int64(blockIdx.x) * blockDim.x + threadIdx.x;
    int64 start = blockIdx.y * chunk, stop = start + chunk < rows ? start + chunk : rows;
    wide total = 0;
    if (j < width) {
        for (int64 i = start + threadIdx.y; i < stop; i += EACH * blockDim.y) {
            real part[EACH];
#pragma unroll
            for (int k = 0; k < EACH; k++) {
                int64 at = i + k * blockDim.y;
                part[k] = 0;
                if (at < stop) {
                    real g = gs[at * g_row + j * g_step], y = ys[at * y_row + j * y_step];
                    part[k] = DERIVATIVE;
                    out[at * width + j] = part[k];
                }
            }
            total += wide((part[0] + part[1]) + (part[2] + part[3]));
        }
    }
    total = tree_reduce<Sum>(total, threadIdx.y, blockDim.y, blockDim.x);
    if (threadIdx.y == 0 && j < width) sums[blockIdx.y * width + j] = TO(total);
}
