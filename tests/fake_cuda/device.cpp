#include "device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace fake {

std::recursive_mutex mutex;
thread_local bool context = false;
StreamPointer legacy = std::make_shared<Stream>();
std::map<cudaStream_t, StreamPointer> streams;
std::set<cudaEvent_t> events;
std::set<cudaGraph_t> graphs;
std::map<cudaGraphExec_t, std::shared_ptr<Executable>> executables;

// Tasks that a queue holds; who queues more waits for older ones.
constexpr size_t DEPTH = 1024;

StreamPointer stream_of(cudaStream_t handle) {
    if (!handle || handle == cudaStreamLegacy) return legacy;
    auto found = streams.find(handle);
    return found == streams.end() ? nullptr : found->second;
}

static void queue(Stream& stream, Task task) {
    stream.tasks.push_back(std::move(task));
    stream.queued++;
}

static void queue_wait(Stream& stream, const StreamPointer& other, uint64_t place) {
    if (other->done < place) queue(stream, [other, place] { run(*other, place); });
}

cudaError_t enqueue(const StreamPointer& stream, Task task) {
    if (stream->capturing) {
        if (stream->spoiled) return cudaErrorStreamCaptureInvalidated;
        stream->captured.push_back(std::move(task));
        return cudaSuccess;
    }
    if (stream == legacy) {
        for (auto& [_, other] : streams) {
            if (other->blocking && other->capturing) return spoil(*other, cudaErrorStreamCaptureImplicit);
            if (other->blocking) queue_wait(*stream, other, other->queued);
        }
    } else if (stream->blocking) {
        queue_wait(*stream, legacy, legacy->queued);
    }
    queue(*stream, std::move(task));
    if (stream->tasks.size() > DEPTH) run(*stream, stream->queued - DEPTH / 2);
    return cudaSuccess;
}

cudaError_t wait_for(const StreamPointer& stream, const StreamPointer& other, uint64_t place) {
    return enqueue(stream, [other, place] { run(*other, place); });
}

void run(Stream& stream, uint64_t place) {
    memory::Open open;
    while (stream.done < place && !stream.tasks.empty()) {
        Task task = std::move(stream.tasks.front());
        stream.tasks.pop_front();
        task();
        stream.done++;
    }
}

void run_all() {
    for (auto& [_, stream] : streams) run(*stream);
    run(*legacy);
}

cudaError_t spoil(Stream& stream, cudaError_t error) {
    stream.spoiled = true;
    return error;
}

cudaError_t unsafe() {
    for (auto& [_, stream] : streams) {
        bool mine = stream->mode == cudaStreamCaptureModeThreadLocal && stream->thread == std::this_thread::get_id();
        if (stream->capturing && (mine || stream->mode == cudaStreamCaptureModeGlobal)) return spoil(*stream);
    }
    return cudaSuccess;
}

cudaError_t waits_for_all() {
    for (auto& [_, stream] : streams)
        if (stream->capturing) return spoil(*stream);
    return cudaSuccess;
}

namespace memory {

constexpr size_t RESERVED = size_t(8) << 30, UNIT = 512;
// As much of what is new is filled with NaN.
constexpr size_t FILLED = 16 << 20;

static char* base = nullptr;
static size_t most = RESERVED, taken = 0;
static std::map<char*, size_t> blocks;
static int open = 0;
static char* end = nullptr;  // nothing beyond it was ever in use

static void protect(int what) {
    if (end > base) mprotect(base, end - base, what);
}

Open::Open() {
    if (!open++) protect(PROT_READ | PROT_WRITE);
}

Open::~Open() {
    if (!--open) protect(PROT_NONE);
}

cudaError_t take(void** pointer, size_t size) {
    size = (size + UNIT - 1) / UNIT * UNIT;
    if (!base) {
        void* made = mmap(nullptr, RESERVED, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (made == MAP_FAILED) return cudaErrorInitializationError;
        base = end = static_cast<char*>(made);
    }
    if (size > most - taken) return cudaErrorMemoryAllocation;
    char* place = base;
    for (auto& [start, length] : blocks) {
        if (size_t(start - place) >= size) break;
        place = start + length;
    }
    if (size > size_t(base + RESERVED - place)) return cudaErrorMemoryAllocation;
    blocks[place] = size, taken += size;
    end = std::max(end, (char*)((uintptr_t(place + size) + 4095) & ~uintptr_t(4095)));
    Open opened;
    memset(place, 0xff, std::min(size, FILLED));
    *pointer = place;
    return cudaSuccess;
}

cudaError_t give_back(void* pointer) {
    auto found = blocks.find(static_cast<char*>(pointer));
    if (found == blocks.end()) return cudaErrorInvalidValue;
    taken -= found->second;
    blocks.erase(found);
    return cudaSuccess;
}

bool here(const void* pointer) { return base && pointer >= base && pointer < base + RESERVED; }

bool whole(const void* pointer, size_t size) {
    const char* first = static_cast<const char*>(pointer);
    auto found = blocks.upper_bound(const_cast<char*>(first));
    if (!here(pointer) || found == blocks.begin()) return false;
    --found;
    return first + size <= found->first + found->second;
}

size_t total() { return most; }
size_t free() { return most - taken; }
void limit(size_t bytes) { most = std::max(taken, std::min(bytes, RESERVED)); }

}  // namespace memory
}  // namespace fake

// Bytes of memory that the device has from now on; more than it ever had are not to be had.
extern "C" void fake_limit(size_t bytes) {
    LOCKED;
    fake::memory::limit(bytes);
}
