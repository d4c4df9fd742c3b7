// Where the operands of a convolution lie.

#include "divisor.cuh"

// A part of where an element is: offsets of its parts add up, and so do y and x, its place in an image, outside of
// which there are zeros.
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

// The image that is gathered from: place (image, i, j) and tap (p, q, c) meet at channel c and
// y = i * step_y + first_y + p * apart_y, x likewise.
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
