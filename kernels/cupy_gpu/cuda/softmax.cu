// Softmax and its kin along rows: x, g and y have a step along either axis, what is written is contiguous.

#include "row.cuh"

// All threads of a group come to every reduction: those beyond the last row take it once more, and write nothing.

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
softmax(const real* x, real* out, int64 rows, int64 columns, int64 row_step, int64 step) {
    int64 place = group_row(), at = place < rows ? place : rows - 1;
    Row row(x + at * row_step, step, columns);
    real top = -INFINITY;
    row.each([&](int64, real v) { top = greater_of(top, v); });
    top = group_reduce<Max>(top);
    total sum = 0;
    row.change([&](int64, real v) {
        real e = exp(v - top);
        sum += e;
        return e;
    });
    real inverse = real(1 / group_reduce<Sum>(sum));
    if (place < rows) row.each([&](int64 j, real v) { out[at * columns + j] = (EACH ? v : exp(v - top)) * inverse; });
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
log_softmax(const real* x, real* out, int64 rows, int64 columns, int64 row_step, int64 step) {
    int64 place = group_row(), at = place < rows ? place : rows - 1;
    Row row(x + at * row_step, step, columns);
    real top = -INFINITY;
    row.each([&](int64, real v) { top = greater_of(top, v); });
    top = group_reduce<Max>(top);
    total sum = 0;
    row.each([&](int64, real v) { sum += exp(v - top); });
    real whole = real(log(group_reduce<Sum>(sum)));
    if (place < rows) row.each([&](int64 j, real v) { out[at * columns + j] = v - top - whole; });
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
softmax_backward(const real* g, const real* y, real* out, int64 rows, int64 columns, int64 g_row, int64 g_step,
                 int64 y_row, int64 y_step) {
    int64 place = group_row(), at = place < rows ? place : rows - 1;
    Row gs(g + at * g_row, g_step, columns), ys(y + at * y_row, y_step, columns);
    total sum = 0;
    each_pair(gs, ys, [&](int64, real a, real b) { sum += a * b; });
    real mean = real(group_reduce<Sum>(sum));
    if (place < rows) each_pair(gs, ys, [&](int64 j, real a, real b) { out[at * columns + j] = b * (a - mean); });
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
log_softmax_backward(const real* g, const real* y, real* out, int64 rows, int64 columns, int64 g_row, int64 g_step,
                     int64 y_row, int64 y_step) {
    int64 place = group_row(), at = place < rows ? place : rows - 1;
    Row gs(g + at * g_row, g_step, columns), ys(y + at * y_row, y_step, columns);
    total sum = 0;
    gs.each([&](int64, real a) { sum += a; });
    real whole = real(group_reduce<Sum>(sum));
    if (place < rows)
        each_pair(gs, ys, [&](int64 j, real a, real b) { out[at * columns + j] = a - exp(b) * whole; });
}

// weight[j] * q[j] of the loss: q is 1 - smoothing at the target and smoothing / columns everywhere.
struct Wanted {
    int64 target;
    const real* weight;
    int64 weight_step;
    real hit, each;

    __device__ __forceinline__ Wanted(int64 target, const real* weight, int64 weight_step, double smoothing,
                                      int64 columns)
        : target(target), weight(weight), weight_step(weight_step), hit(1 - smoothing), each(smoothing / columns) {}

    __device__ __forceinline__ real at(int64 j) const {
        real q = (j == target ? hit : real(0)) + each;
        return weight ? q * weight[j * weight_step] : q;
    }
};

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
cross_entropy(const real* x, const int64* target, const real* weight, double smoothing, real* loss, real* probabilities,
              int64 rows, int64 columns, int64 row_step, int64 step, int64 target_step, int64 weight_step) {
    int64 place = group_row(), at = place < rows ? place : rows - 1;
    Row row(x + at * row_step, step, columns);
    Wanted wanted(target[at * target_step], weight, weight_step, smoothing, columns);
    real top = -INFINITY;
    row.each([&](int64, real v) { top = greater_of(top, v); });
    top = group_reduce<Max>(top);
    total sum = 0;
    row.each([&](int64, real v) { sum += exp(v - top); });
    sum = group_reduce<Sum>(sum);
    real inverse = real(1 / sum), whole = real(log(sum));
    total terms = 0;
    row.each([&](int64 j, real v) {
        real w = wanted.at(j);
        if (w != 0) terms += w * (whole - (v - top));
        if (place < rows) probabilities[at * columns + j] = exp(v - top) * inverse;
    });
    terms = group_reduce<Sum>(terms);
    bool is_class = wanted.target >= 0 && wanted.target < columns;
    if (place < rows && group_lane() == 0) loss[at] = is_class ? real(terms) : real(NAN);
}

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
cross_entropy_backward(const real* g, const real* probabilities, const int64* target, const real* weight,
                       double smoothing, real* out, int64 rows, int64 columns, int64 row_step, int64 step, int64 g_step,
                       int64 target_step, int64 weight_step) {
    int64 place = group_row(), at = place < rows ? place : rows - 1;
    Row row(probabilities + at * row_step, step, columns);
    Wanted wanted(target[at * target_step], weight, weight_step, smoothing, columns);
    real scale = g[at * g_step];
    total sum = 0;
    row.each([&](int64 j, real) { sum += wanted.at(j); });
    real whole = real(group_reduce<Sum>(sum));
    if (place < rows)
        row.each([&](int64 j, real p) { out[at * columns + j] = scale * (whole * p - wanted.at(j)); });
}
