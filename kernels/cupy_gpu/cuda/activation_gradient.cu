// The gradient of an activation, and its sums over the rows of a chunk.

#ifndef DERIVATIVE
#define DERIVATIVE (y > 0 ? g : 0)  // of the activation, times g, from its result y
#define TO real
#endif

#include "columns.cuh"

extern "C" __global__ void __launch_bounds__(256)
activation_gradient(const real* gs, const real* ys, real* out, TO* sums, int64 rows, int64 width, int64 chunk,
                    int64 g_row, int64 g_step, int64 y_row, int64 y_step) {
    WALK(rows)
    gs += walk.column * g_step;
    ys += walk.column * y_step;
    wide sum = 0;
    walk.each([&](int64 i) { return Pair{gs[i * g_row], ys[i * y_row]}; },
              [&](int64 i, Pair part) {
                  real g = part.g, y = part.x;
                  real here = DERIVATIVE;
                  out[i * width + walk.column] = here;
                  sum += here;
              });
    sum = down_columns(sum);
    if (inside && threadIdx.y == 0) sums[blockIdx.y * width + walk.column] = TO(sum);
}
