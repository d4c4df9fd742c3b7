#include "columns.cuh"

// The gradients for weight and bias, either of which may be null, from the sums of the chunks.
extern "C" __global__ void __launch_bounds__(256)
gradient_totals(const Sums* partial, real* weight_gradient, real* bias_gradient, int64 width, int64 chunk) {
    WALK(chunk)
    Sums sums = summed(walk, partial, width);
    if (!inside || threadIdx.y) return;
    if (bias_gradient) bias_gradient[walk.column] = real(sums.first);
    if (weight_gradient) weight_gradient[walk.column] = real(sums.second);
}
