// Where the elements of the operands of a product lie: a(m, k) and b(k, n), as matrices or as those of a convolution.
//
// An operand gives two Spots, one for each of its indices. Their offsets add up to the element's; of a gathered operand,
// their y and x add up to its place in the image, outside of which it is zero.

// Division by a constant: n / divisor for n < 2^31 (Granlund and Montgomery 1994).
struct Divisor {
    uint32 divisor, factor, shift;

    __device__ __forceinline__ uint32 quotient(uint32 n) const { return (__umulhi(n, factor) + n) >> shift; }
};

struct Spot {
    int64 offset;
    int y, x;
};

// The last three axes of places (image, row, column), numbered in that order.
struct Places {
    Divisor image, column;  // places of an image, places of a row
};

// The taps of a kernel (row, column, channel), numbered in that order.
struct Taps {
    Divisor channel, column;  // channels of a tap, taps of a row
};

// The image that is gathered from: place (image, i, j) and tap (p, q, c) meet at y = i * step_y + first_y + p * apart_y,
// x likewise, and c.
struct Image {
    int64 image, row, column, channel;  // strides
    int height, width, step_y, step_x, first_y, first_x, apart_y, apart_x;

    __device__ __forceinline__ Spot place(Places of, uint32 index) const {
        uint32 n = of.image.quotient(index), rest = index - n * of.image.divisor;
        uint32 i = of.column.quotient(rest), j = rest - i * of.column.divisor;
        int y = int(i) * step_y + first_y, x = int(j) * step_x + first_x;
        return {n * image + y * row + x * column, y, x};
    }
    __device__ __forceinline__ Spot tap(Taps of, uint32 index) const {
        uint32 tap = of.channel.quotient(index), c = index - tap * of.channel.divisor;
        uint32 p = of.column.quotient(tap), q = tap - p * of.column.divisor;
        int y = int(p) * apart_y, x = int(q) * apart_x;
        return {y * row + x * column + c * channel, y, x};
    }
    __device__ __forceinline__ bool holds(Spot a, Spot b) const {
        return uint32(a.y + b.y) < uint32(height) && uint32(a.x + b.x) < uint32(width);
    }
};

// Strides of what lies at every (image, row, column) of places or (row, column, channel) of taps.
struct Steps {
    int64 first, second, third;

    __device__ __forceinline__ int64 place(Places of, uint32 index) const {
        uint32 n = of.image.quotient(index), rest = index - n * of.image.divisor;
        uint32 i = of.column.quotient(rest), j = rest - i * of.column.divisor;
        return n * first + i * second + j * third;
    }
    __device__ __forceinline__ int64 tap(Taps of, uint32 index) const {
        uint32 tap = of.channel.quotient(index), c = index - tap * of.channel.divisor;
        uint32 p = of.column.quotient(tap), q = tap - p * of.column.divisor;
        return p * first + q * second + c * third;
    }
};

// What a launch is told; `kernels/cupy_gpu/gemm.py` has the same table.
struct Task {
    int64 a_side, a_k, a_outer, a_inner;  // strides of a: along m, along k, of the two axes of the batch
    int64 b_side, b_k, b_outer, b_inner;  // of b: along n, along k, of the batch
    int64 out_row, out_outer, out_inner, bias_inner;
    Image image;       // gathered operand
    Steps other, to;   // of the other operand along k; of out along m, if it is spread
    int m, n, k, batch, inner;  // products: batch of them, of which `inner` follow each other along the inner axis
    int splits, span;  // k is cut into so many parts of `span`
    int activation, wide, spread;  // wide: out may be written 16 bytes at a time
    Places places;
    Taps taps;
};

#define MATRIX 0           // a and b are matrices
#define CORRELATION 1      // a(place, tap) is gathered, b(tap, n) are weights
#define WEIGHT_GRADIENT 2  // a(tap, place) is gathered, b(place, n) lies at every place

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
