// Reductions of an array that is walked as outputs x counted elements, each of them along up to two axes.
//
//   across: the threads of a row of the block share an output, and its elements lie side by side in memory;
//   else those of a column do, and outputs lie side by side.
//
// Block (i, k) combines the k-th chunk of the elements of the i-th outputs into row k of `out`. In a plan, macros may
// say how an element is computed from other arrays, and what is done with a result (reduction.py).

#ifndef FROM
#define FROM real
#define TO real
#define SUM wide
#define OP Sum
#define ELEMENT(x) x
#endif

#ifndef LOAD
#define LOAD(i) x[i]                           // element i
#endif
#ifndef RESULT
#define RESULT(o, total) out[o] = TO(total);  // result o
#endif
#ifndef PARAMETERS
#define PARAMETERS                             // what these two need
#endif

#define EACH 8

extern "C" __global__ void __launch_bounds__(256)
reduce(const FROM* x, TO* out, int64 outputs, int64 count, int64 chunk, int64 across, int64 kept_side, int64 kept_outer,
       int64 kept_inner, int64 side, int64 outer, int64 inner PARAMETERS) {
    int lane = across ? threadIdx.x : threadIdx.y, lanes = across ? blockDim.x : blockDim.y;
    int own = across ? threadIdx.y : threadIdx.x, owners = across ? blockDim.y : blockDim.x;
    int64 o = int64(blockIdx.x) * owners + own;
    int64 start = blockIdx.y * chunk, stop = start + chunk < count ? start + chunk : count;
    SUM total = OP::none<SUM>();
    if (o < outputs) {
        int64 first = place_of(o, kept_side, kept_outer, kept_inner);
        for (int64 i = start + lane; i < stop; i += EACH * lanes) {
            FROM part[EACH];
#pragma unroll
            for (int k = 0; k < EACH; k++) {
                int64 at = i + k * lanes;
                part[k] = OP::none<FROM>();
                if (at < stop) {
                    FROM v = LOAD(first + place_of(at, side, outer, inner));
                    part[k] = ELEMENT(v);
                }
            }
#pragma unroll
            for (int half = EACH / 2; half > 0; half /= 2)
#pragma unroll
                for (int k = 0; k < half; k++) part[k] = OP::of(part[k], part[k + half]);
            total = OP::of(total, SUM(part[0]));
        }
    }
    total = tree_reduce<OP>(total, lane, lanes, across ? 1 : blockDim.x);
    if (lane == 0 && o < outputs) {
        RESULT(blockIdx.y * outputs + o, total)
    }
}
