// What sm_90 has and older GPUs have not, for emulator.h: barriers that count arrivals, and products of warpgroups.
// How operands lie in shared memory follows the chapters on wgmma of "Parallel Thread Execution ISA", and no kernel.

// mbarrier: arrivals that a phase wants, those that it still wants, and its number.
struct CountingBarrier {
    uint16_t all, missing;
    uint32_t phase;
};

template <typename Word> CountingBarrier& counting(Word* barrier) {
    static_assert(sizeof(Word) == sizeof(CountingBarrier));
    return *reinterpret_cast<CountingBarrier*>(barrier);
}
template <typename Word> void init_barrier(Word* barrier, int count) {
    counting(barrier) = {uint16_t(count), uint16_t(count), 0};
    progress++;
}
template <typename Word> void arrive(Word* barrier) {
    CountingBarrier& counts = counting(barrier);
    if (--counts.missing == 0) counts = {counts.all, counts.all, counts.phase + 1};
    progress++;
}
template <typename Word> void wait_for_phase(Word* barrier, unsigned parity) {
    volatile uint32_t& phase = counting(barrier).phase;
    while ((phase & 1) == parity) yield();
}

constexpr int WARPGROUP = 128;

// One of a warpgroup: where its threads keep d, and how many of them have issued it.
struct Products {
    float* d[WARPGROUP] = {};
    const uint32_t* words[WARPGROUP] = {};  // registers with what each gives of a; else a is in shared memory
    int columns = 0, issued = 0, group = 0;
    uint64_t a = 0, b = 0;
    bool add = false, done = false;
    void (*carry_out)(Products&) = nullptr;
};

inline std::vector<std::vector<Products>> products;  // of each warpgroup, in the order of their issue

inline void begin_block() {
    products.assign((threads + WARPGROUP - 1) / WARPGROUP, {});
    std::fill(hidden.begin(), hidden.end(), 0);
}

// Addresses of shared memory, which begin with what the system keeps for itself.
inline unsigned shared_address(const void* p) { return unsigned(static_cast<const unsigned char*>(p) - shared_window); }

[[noreturn]] inline void refuse(const char* words) {
    fprintf(stderr, "emulator: %s\n", words);
    abort();
}

// An operand of 128-byte swizzling. A matrix is made of units of 16 bytes: rows of the tables in "Strides" are units
// along the inner axis, columns go across. Without transposition the inner axis is k.
struct Operand {
    unsigned start, leading, stride;

    explicit Operand(uint64_t bits) {
        start = (bits & 0x3fff) << 4, leading = (bits >> 16 & 0x3fff) << 4, stride = (bits >> 32 & 0x3fff) << 4;
        if (bits >> 62 != 1) refuse("an operand of wgmma is not swizzled by 128 bytes, which is all that is emulated");
        if (bits >> 49 & 7) refuse("an operand of wgmma has a base offset, which is not emulated");
    }
    // Byte `inner` along the inner axis, place `across` across it.
    const unsigned char* at(unsigned inner, unsigned across, bool k_inside) const {
        unsigned address = start + across / 8 * stride + across % 8 * 128 + inner % 128;
        if (inner >= 128) {
            if (k_inside) refuse("k of wgmma leaves its 128 bytes");
            address += inner / 128 * leading;
        }
        address ^= (address >> 7 & 7) << 4;  // the pattern repeats from multiples of 1024
        if (address + 1 >= WINDOW) refuse("an operand of wgmma lies outside of shared memory");
        if (hidden[address / 16]) refuse("wgmma reads what no fence has shown to it since it was copied");
        return shared_window + address;
    }
};

template <bool BF16> float number_at(const unsigned char* p) {
    uint32_t word = 0;
    BF16 ? memcpy(reinterpret_cast<char*>(&word) + 2, p, 2) : memcpy(&word, p, 4);
    if (!BF16) word &= ~0x1fffu;  // cut off
    float number;
    memcpy(&number, &word, 4);
    return number;
}

template <bool BF16, bool A_K_INSIDE, bool B_K_INSIDE> void carry_out(Products& p) {
    constexpr int SIZE = BF16 ? 2 : 4, K = 32 / SIZE;
    static_assert(BF16 || (A_K_INSIDE && B_K_INSIDE), "only numbers of 2 bytes can be transposed");
    Operand a(p.words[0] ? p.b : p.a), b(p.b);
    std::vector<float> left(64 * K), right(p.columns * K);
    for (int k = 0; k < K; k++) {
        for (int i = 0; i < 64; i++) {
            if (p.words[0]) {
                int thread = i / 16 * 32 + i % 8 * 4 + k % 4, word = i / 8 % 2 + k / 4 * 2;
                static_assert(BF16 || K == 8);
                if (BF16) refuse("a of bf16 in registers is not emulated");
                left[i * K + k] = number_at<BF16>(reinterpret_cast<const unsigned char*>(&p.words[thread][word]));
                continue;
            }
            left[i * K + k] = number_at<BF16>(A_K_INSIDE ? a.at(k * SIZE, i, true) : a.at(i * SIZE, k, false));
        }
        for (int j = 0; j < p.columns; j++)
            right[j * K + k] = number_at<BF16>(B_K_INSIDE ? b.at(k * SIZE, j, true) : b.at(j * SIZE, k, false));
    }
    for (int thread = 0; thread < WARPGROUP; thread++)
        for (int r = 0; r < p.columns / 2; r++) {
            int row = thread / 32 * 16 + thread % 32 / 4 + r / 2 % 2 * 8, column = r / 4 * 8 + thread % 4 * 2 + r % 2;
            double sum = 0;
            for (int k = 0; k < K; k++) sum += double(left[row * K + k]) * right[column * K + k];
            float& d = p.d[thread][r];
            d = float((p.add ? d : 0.f) + sum);
        }
}

// The threads of a warpgroup issue the same products; they are carried out at some time between the commit of their
// group and the wait for it, in order.
template <bool BF16, bool A_K_INSIDE, bool B_K_INSIDE>
void multiply(float* d, int columns, uint64_t a, uint64_t b, bool add, const uint32_t* words = nullptr) {
    Fiber& me = *fibers[current];
    auto& mine = products[current / WARPGROUP];
    if (me.products == long(mine.size())) mine.emplace_back();
    Products& p = mine[me.products++];
    if (p.issued++ == 0)
        p.a = a, p.b = b, p.columns = columns, p.add = add, p.group = me.groups_of_products,
        p.carry_out = carry_out<BF16, A_K_INSIDE, B_K_INSIDE>;
    if (p.a != a || p.b != b || p.add != add || p.group != me.groups_of_products)
        refuse("the threads of a warpgroup issue different products");
    p.d[current % WARPGROUP] = d, p.words[current % WARPGROUP] = words;
    progress++;
}
// Carries out the groups before `group`.
inline void complete(int group) {
    int warpgroup = current / WARPGROUP;
    for (size_t i = 0; i < products[warpgroup].size(); i++) {
        if (products[warpgroup][i].group >= group) return;
        while (products[warpgroup][i].issued < WARPGROUP) yield();
        Products& p = products[warpgroup][i];
        if (!p.done) p.carry_out(p);
        p.done = true;
    }
}
inline void commit_products() {
    int group = ++fibers[current]->groups_of_products;
    if (random() % 256 == 0) complete(group);
}
inline void wait_for_products(int open) { complete(fibers[current]->groups_of_products - open); }
