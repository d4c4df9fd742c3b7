// Where the elements of the operands of a product lie: a(m, k) and b(k, n), as matrices or as those of a convolution.
// Each gives a Spot for each of its two indices.
#include "image.cuh"

#define MATRIX 0           // a and b are matrices
#define CORRELATION 1      // a(place, tap) is gathered, b(tap, n) are weights
#define WEIGHT_GRADIENT 2  // a(tap, place) is gathered, b(place, n) lies at every place

// What a launch is told; TASK in gemm.py is the same table.
struct Task {
    int64 a_side, a_k, a_outer, a_inner;  // strides of a: along m, along k, of the two axes of the batch
    int64 b_side, b_k, b_outer, b_inner;  // of b: along n, along k, of the batch
    int64 out_row, out_outer, out_inner, bias_inner, bias_n;
    Image image;       // gathered operand
    Steps other, to;   // of the other operand along k; of out along m, if it is spread
    int m, n, k, batch, inner;  // products: batch of them, of which `inner` follow each other along the inner axis
    int splits, span;  // k is cut into so many parts of `span`
    int activation, wide, spread;  // wide: out may be written 16 bytes at a time
    Places places;
    Taps taps;
};
static_assert(sizeof(Task) == 304);

struct A {
    __device__ __forceinline__ static Spot side(const Task& task, int m) {
        if constexpr (KIND == CORRELATION) return task.image.place(task.places, m);
        if constexpr (KIND == WEIGHT_GRADIENT) return task.image.tap(task.taps, m);
        return {m * task.a_side, 0, 0};
    }
    __device__ __forceinline__ static Spot along(const Task& task, int k) {
        if constexpr (KIND == CORRELATION) return task.image.tap(task.taps, k);
        if constexpr (KIND == WEIGHT_GRADIENT) return task.image.place(task.places, k);
        return {k * task.a_k, 0, 0};
    }
    __device__ __forceinline__ static bool holds(const Task& task, Spot a, Spot b) {
        if constexpr (KIND == MATRIX) return true;
        return task.image.holds(a, b);
    }
};

struct B {
    __device__ __forceinline__ static Spot side(const Task& task, int n) { return {n * task.b_side, 0, 0}; }
    __device__ __forceinline__ static Spot along(const Task& task, int k) {
        if constexpr (KIND == CORRELATION) return {task.other.tap(task.taps, k), 0, 0};
        if constexpr (KIND == WEIGHT_GRADIENT) return {task.other.place(task.places, k), 0, 0};
        return {k * task.b_k, 0, 0};
    }
    __device__ __forceinline__ static bool holds(const Task&, Spot, Spot) { return true; }
};
