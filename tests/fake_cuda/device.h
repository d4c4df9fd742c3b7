// The fake GPU: memory, streams whose work is done as late as CUDA allows, events and graphs.
//
// All that a stream is given is queued, and carried out when somebody waits for it: whoever reads a result without
// having waited reads something else. Device memory can be touched by queued work alone; the host gets SIGSEGV.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace fake {

using Task = std::function<void()>;
using Tasks = std::vector<Task>;

// Held during every call; work is carried out under it too, one piece at a time.
extern std::recursive_mutex mutex;
#define LOCKED std::lock_guard<std::recursive_mutex> locked(fake::mutex)

// Whether the thread has a context: calls of the runtime give it one, and the driver wants one.
extern thread_local bool context;

struct Stream {
    bool blocking = true;  // it waits for the legacy stream, and the legacy stream for it
    std::deque<Task> tasks;
    uint64_t queued = 0, done = 0;

    bool capturing = false, spoiled = false;
    Tasks captured;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    std::thread::id thread;
};

using StreamPointer = std::shared_ptr<Stream>;

struct Event {
    StreamPointer stream;  // of the last record, none before it
    uint64_t place = 0;
    bool captured = false;
    std::shared_ptr<double> milliseconds;
};

struct Executable {
    Tasks tasks;
    StreamPointer stream;  // of its last launch: launches of one graph follow each other
    uint64_t place = 0;
};

extern StreamPointer legacy;
extern std::map<cudaStream_t, StreamPointer> streams;
extern std::set<cudaEvent_t> events;
extern std::set<cudaGraph_t> graphs;
extern std::map<cudaGraphExec_t, std::shared_ptr<Executable>> executables;

// The stream of a handle, or none.
StreamPointer stream_of(cudaStream_t handle);

// Queue a task, or record it where the stream captures.
cudaError_t enqueue(const StreamPointer& stream, Task task);
// The same, and the task lasts until that place of another stream is reached.
cudaError_t wait_for(const StreamPointer& stream, const StreamPointer& other, uint64_t place);
// Carry out a stream's work up to a place.
void run(Stream& stream, uint64_t place);
inline void run(Stream& stream) { run(stream, stream.queued); }
void run_all();

// Calls that a capture does not allow spoil it. Success where there is none in the way.
cudaError_t spoil(Stream& stream, cudaError_t error = cudaErrorStreamCaptureUnsupported);
cudaError_t unsafe();
cudaError_t waits_for_all();

namespace memory {

cudaError_t take(void** pointer, size_t size);
cudaError_t give_back(void* pointer);
// Whether it lies in the device's memory, and whether all these bytes are of one allocation.
bool here(const void* pointer);
bool whole(const void* pointer, size_t size);
size_t total();
size_t free();
void limit(size_t bytes);

// Device memory can be touched while one of these lives.
struct Open {
    Open();
    ~Open();
};

}  // namespace memory
}  // namespace fake
