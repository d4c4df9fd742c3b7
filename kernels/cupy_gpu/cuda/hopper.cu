// Products of matrices, and convolutions as such, by the tensor cores of sm_90a: what gemm.cu computes, of operands that
// `rounded` has made of float32.
//
//    copying warps     STAGES buffers of a and b     two multiplying warpgroups
//                       +---+---+---+---+
//    cp.async  ------>  | a | a | a | a |  ------>   out rows 0 .. TILE_M / 2      Each has half the rows of the tile
//     `full` tells      | b | b | b | b |  ------>   out rows TILE_M / 2 .. TILE_M  and all its columns.
//                       +---+---+---+---+            `empty` tells
//
// A block makes tiles blockIdx.x, + gridDim.x, ...; while the sums of one are written, the next is being copied.
//
// Macros: KIND, see operands.cuh. TENSOR: TF32 or BF16. A_K_INSIDE, B_K_INSIDE: k is the inner axis of the operand, else
// m or n is (BF16 only). A_IN_REGISTERS: a is float32 as it was, and rounded on its way (TF32 with k inside). TILE_M,
// TILE_N. STAGES. SHARED. FEW, MANY: registers of a thread that copies or multiplies. Those of epilogue.cuh.
#include "async.cuh"
#include "barrier.cuh"
#include "mma.cuh"
#include "numbers.cuh"
#include "wgmma.cuh"
#include "operands.cuh"
#include "epilogue.cuh"

constexpr int GROUP = 128;  // threads of a warpgroup
constexpr int MULTIPLYING = 2, THREADS = (MULTIPLYING + 1) * GROUP;  // warpgroups; threads of a block
constexpr int PIECE = 16 / sizeof(number);  // numbers that are copied at once
constexpr int ROW = 128, TILE_K = ROW / sizeof(number), STEP = 32;  // bytes of a row, and of it what is multiplied at once
constexpr int LEAP = 64 * ROW;  // bytes of 64 sides
constexpr int A_BYTES = TILE_M * ROW, STAGE = A_BYTES + TILE_N * ROW;
constexpr int BLOCKS_OF_64 = TILE_M / MULTIPLYING / 64;
static_assert((A_K_INSIDE && B_K_INSIDE) || TILE_K == 64);  // then 64 sides of all k have as many bytes
constexpr int LAG = STAGES / 2;  // stages that are being copied while the next is begun
static_assert(SHARED >= STAGES * STAGE + SPAN && LAG + 2 <= STAGES);

// b(k, n) lies as a matrix, whatever the kind.
struct Matrix {
    __device__ __forceinline__ static Spot side(const Task& task, int n) { return {n * task.b_side, 0, 0}; }
    __device__ __forceinline__ static Spot along(const Task& task, int k) { return {k * task.b_k, 0, 0}; }
    __device__ __forceinline__ static bool holds(const Task&, Spot, Spot) { return true; }
};

// The compiler keeps this number, in place of what it was made of.
template <typename T> __device__ __forceinline__ void keep(T& number) {
#ifndef EMULATED
    if constexpr (sizeof(T) == 4)
        asm volatile("" : "+r"(number));
    else
        asm volatile("" : "+l"(number));
#endif
}

// A spot in two registers: scratch arrays and images have less than 2^31 elements, sides of images less than 2^15.
struct Near {
    int offset, yx;

    __device__ __forceinline__ void set(Spot spot) {
        offset = int(spot.offset), yx = int(uint32(spot.y) << 16 | (uint32(spot.x) & 0xffffu));
        keep(yx);
    }
    __device__ __forceinline__ operator Spot() const { return {offset, yx >> 16, short(yx)}; }
};

// Copies stages of an operand, EXTENT along m or n; every thread of the warpgroup copies the same pieces of each.
template <typename Operand, int EXTENT, bool K_INSIDE> struct Copier {
    static constexpr int LANES = K_INSIDE ? ROW / 16 : EXTENT / PIECE, ROWS = GROUP / LANES;  // threads along a row
    static constexpr int SIDES = K_INSIDE ? EXTENT / ROWS : 1, DEPTHS = K_INSIDE ? 1 : TILE_K / ROWS;
    static_assert(SIDES <= 32 && DEPTHS > 0);

    const number* data;
    Near sides[SIDES];
    uint32 inside = 0;

    __device__ __forceinline__ static int thread() { return threadIdx.x % GROUP; }
    __device__ __forceinline__ static int side(int i) {
        return K_INSIDE ? thread() / LANES + i * ROWS : thread() % LANES * PIECE;
    }
    __device__ __forceinline__ static int depth(int i) {
        return K_INSIDE ? thread() % LANES * PIECE : thread() / LANES + i * ROWS;
    }
    // Bytes from the beginning of the operand in shared memory to piece (i, j) of this thread. Its rows are `apart` rows
    // apart, whose bits are none of those of its first row.
    __device__ __forceinline__ static int at(int i, int j) {
        int row = K_INSIDE ? side(0) : side(0) / 64 * TILE_K + depth(0);
        int piece = (K_INSIDE ? depth(0) : side(0) % 64) / PIECE, apart = (i + j) * ROWS;
        return ((row * ROW + (piece ^ row % 8) * 16) ^ apart % 8 * 16) + apart * ROW;
    }
    __device__ __forceinline__ Copier(const Task& task, const number* data, int first, int end) : data(data) {
#pragma unroll
        for (int i = 0; i < SIDES; i++) {
            sides[i].set(Operand::side(task, first + side(i)));
            inside |= uint32(first + side(i) < end) << i;
        }
        keep(inside), keep(this->data);
    }
    __device__ __forceinline__ void copy(const Task& task, unsigned char* to, int first, int end) const {
#pragma unroll
        for (int j = 0; j < DEPTHS; j++) {
            Spot along = Operand::along(task, first + depth(j));
            bool within = first + depth(j) < end;
#pragma unroll
            for (int i = 0; i < SIDES; i++) {
                bool valid = within && (inside >> i & 1u) && Operand::holds(task, sides[i], along);
                copy_async<16>(to + at(i, j), data + uint32(valid ? sides[i].offset + int(along.offset) : 0), valid);
            }
        }
    }
};

// The same for a(tap, place) with k inside where it has to be (TF32): one number after another, since those that follow
// along k are not aligned. A warp copies whole rows.
template <int EXTENT> struct Gatherer {
    static constexpr int EACH = EXTENT / (GROUP / WARP), SETS = EACH / WARP;  // rows of a warp; of each of its lanes
    static_assert(SETS * WARP == EACH && (KIND != WEIGHT_GRADIENT || TENSOR != TF32 || TILE_K == WARP));

    const number* data;
    Near rows[SETS];

    __device__ __forceinline__ Gatherer(const Task& task, const number* data, int first, int end) : data(data) {
        first += threadIdx.x % GROUP / WARP * EACH + threadIdx.x % WARP;
#pragma unroll
        for (int set = 0; set < SETS; set++, first += WARP)
            rows[set].set(first < end ? A::side(task, first) : Spot{0, -(1 << 15), 0});  // in no image
        keep(this->data);
    }
    __device__ __forceinline__ void copy(const Task& task, unsigned char* to, int first, int end) const {
        int lane = threadIdx.x % WARP;
        Spot along = A::along(task, first + lane);
        bool within = first + lane < end;
        to += threadIdx.x % GROUP / WARP * EACH * ROW;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            Near row = {__shfl_sync(ALL_LANES, rows[i / WARP].offset, i % WARP),
                        __shfl_sync(ALL_LANES, rows[i / WARP].yx, i % WARP)};
            bool valid = within && A::holds(task, row, along);
            copy_async<4>(to + (i * ROW + (lane * 4 ^ i % 8 * 16)), data + uint32(valid ? row.offset + int(along.offset) : 0),
                          valid);
        }
    }
};

#if KIND == WEIGHT_GRADIENT && TENSOR == TF32
typedef Gatherer<TILE_M> CopierA;
#else
typedef Copier<A, TILE_M, A_K_INSIDE> CopierA;
#endif
typedef Copier<Matrix, TILE_N, B_K_INSIDE> CopierB;

struct Barriers {
    uint64 full[STAGES], empty[STAGES];
};

// Fills stage after stage, for all tiles of this block.
__device__ __forceinline__ void fill(const Task& task, const number* a, const number* b, unsigned char* stages,
                                     Barriers& barriers, uint32 all) {
    uint32 filled = 0;
    auto tell = [&](uint32 which) {
        show_to_tensor_cores();
        __syncwarp();
        if (threadIdx.x % WARP == 0) arrive(&barriers.full[which % STAGES]);
    };
    for (uint32 index = blockIdx.x; index < all; index += gridDim.x) {
        const Part part(task, index);
        CopierA copy_a(task, a + part.outer * task.a_outer + part.inner * task.a_inner, part.first_m,
                                             task.m);
        CopierB copy_b(task, b + part.outer * task.b_outer + part.inner * task.b_inner,
                                                  part.first_n, task.n);
        for (int k = part.k; k < part.end; k += TILE_K, filled++) {
            uint32 stage = filled % STAGES, turn = filled / STAGES;
            if (turn > 0) wait(&barriers.empty[stage], (turn - 1) & 1u);
            copy_a.copy(task, stages + stage * STAGE, k, part.end);
            copy_b.copy(task, stages + stage * STAGE + A_BYTES, k, part.end);
            commit_copies();
            if (filled >= LAG) {
                wait_for_copies<LAG>();
                tell(filled - LAG);
            }
        }
    }
    wait_for_copies<0>();
    for (uint32 i = filled < LAG ? 0 : filled - LAG; i < filled; i++) tell(i);
}

// Sums of blocks of 64 rows, of which this thread has those of `row` and below.
template <bool ALL_INSIDE>
__device__ __forceinline__ void write_out(const Epilogue& epilogue, int row, const float (&sums)[BLOCKS_OF_64][TILE_N / 2]) {
    int column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int j = 0; j < BLOCKS_OF_64; j++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            real* to = epilogue.row(row + j * 64 + half * 8);
            if (!to) continue;
#pragma unroll
            for (int i = 0; i < TILE_N / 8; i++) {
                real values[2] = {sums[j][4 * i + 2 * half], sums[j][4 * i + 2 * half + 1]};
                epilogue.store(to, 8 * i + column, values, ALL_INSIDE);
            }
        }
}

// What this thread gives of 64 rows of a, rounded; `first` of them.
__device__ __forceinline__ void read_rows(uint32 (&words)[ROW / STEP][4], const unsigned char* first) {
    int lane = threadIdx.x % WARP, row = threadIdx.x % GROUP / WARP * 16 + lane % 16;
#pragma unroll
    for (int i = 0; i < ROW / STEP; i++) {
        int piece = (2 * i + lane / 16) ^ row % 8;
        load_rows(words[i], reinterpret_cast<const float*>(first + row * ROW + piece * 16));
#pragma unroll
        for (int j = 0; j < 4; j++) {
            words[i][j] = tf32(__uint_as_float(words[i][j]));
            keep(words[i][j]);  // before the products begin
        }
    }
}

// Multiplies the rows of warpgroup `group` of all tiles of this block.
__device__ __forceinline__ void drain(const Task& task, int group, const real* bias, real* out, real* parts,
                                      const unsigned char* stages, Barriers& barriers, uint32 all) {
    [[maybe_unused]] constexpr int A_STEP = A_K_INSIDE ? STEP : STEP / int(sizeof(number)) * ROW;
    constexpr int B_STEP = B_K_INSIDE ? STEP : STEP / int(sizeof(number)) * ROW;
    [[maybe_unused]] uint64 a = descriptor(shared_address(stages) + group * BLOCKS_OF_64 * LEAP, LEAP);
    uint64 b = descriptor(shared_address(stages) + A_BYTES, LEAP);
    uint32 used = 0;
    auto give_back = [&](uint32 which) {
        if (threadIdx.x % WARP == 0) arrive(&barriers.empty[which % STAGES]);
    };
    for (uint32 index = blockIdx.x; index < all; index += gridDim.x) {
        const Part part(task, index);
        float sums[BLOCKS_OF_64][TILE_N / 2];
        for (int k = part.k; k < part.end; k += TILE_K, used++) {
            uint32 stage = used % STAGES;
            wait(&barriers.full[stage], used / STAGES & 1u);
#if A_IN_REGISTERS
            uint32 words[BLOCKS_OF_64][ROW / STEP][4];
#pragma unroll
            for (int j = 0; j < BLOCKS_OF_64; j++) read_rows(words[j], stages + stage * STAGE + (group * BLOCKS_OF_64 + j) * LEAP);
#endif
            begin_products();
#pragma unroll
            for (int i = 0; i < ROW / STEP; i++)
#pragma unroll
                for (int j = 0; j < BLOCKS_OF_64; j++) {
#if A_IN_REGISTERS
                    auto& left = words[j][i];
#else
                    uint64 left = later(a, stage * STAGE + j * LEAP + i * A_STEP);
#endif
                    multiply(sums[j], left, later(b, stage * STAGE + i * B_STEP), k > part.k || i > 0);
                }
            commit_products();
            // Meanwhile the other warpgroup multiplies.
            if (A_IN_REGISTERS && k + TILE_K < part.end) {
                wait_for_products<0>();
                give_back(used);
            }
            if (!A_IN_REGISTERS && k > part.k) {
                wait_for_products<1>();
                give_back(used - 1);
            }
        }
        wait_for_products<0>();
        give_back(used - 1);

        const Epilogue epilogue(task, part, bias, out, parts);
#pragma unroll
        for (int j = 0; j < BLOCKS_OF_64; j++) settle(sums[j]);
        int row = group * BLOCKS_OF_64 * 64 + threadIdx.x % GROUP / WARP * 16 + threadIdx.x % WARP / 4;
        epilogue.whole() ? write_out<true>(epilogue, row, sums) : write_out<false>(epilogue, row, sums);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    hopper(const number* a, const number* b, const real* bias, real* out, real* parts, const Task task) {
    DYNAMIC_SHARED(unsigned char, shared);
    __shared__ Barriers barriers;
    unsigned char* stages = shared + (SPAN - shared_address(shared) % SPAN) % SPAN;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            init_barrier(&barriers.full[i], GROUP / WARP);
            init_barrier(&barriers.empty[i], MULTIPLYING * GROUP / WARP);
        }
    }
    __syncthreads();
    uint32 down = (task.m + TILE_M - 1) / TILE_M, across = (task.n + TILE_N - 1) / TILE_N;
    uint32 all = down * across * task.splits * task.batch;
    int group = __shfl_sync(ALL_LANES, int(threadIdx.x) / GROUP, 0);  // known to be the same for a warp
    if (group == MULTIPLYING) {
        fewer_registers<FEW>();
        fill(task, a, b, stages, barriers, all);
    } else {
        more_registers<MANY>();
        drain(task, group, bias, out, parts, stages, barriers, all);
    }
}
