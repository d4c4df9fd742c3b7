// The calls of CUDA's runtime that CuPy makes for what nanonet asks of it, on the fake device.
#include "device.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <utility>

using namespace fake;

static thread_local cudaError_t last = cudaSuccess;
static std::map<char*, size_t> pinned;

static cudaError_t told(cudaError_t error) {
    if (error != cudaSuccess) last = error;
    return error;
}

#define CHECK(call)                                          \
    do {                                                     \
        cudaError_t error_ = (call);                         \
        if (error_ != cudaSuccess) return told(error_);      \
    } while (0)

#define CALL      \
    LOCKED;       \
    context = true

static double now() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// What all calls answer that are not below.
extern "C" cudaError_t fake_unsupported() { return told(cudaErrorNotSupported); }

extern "C" {

cudaError_t cudaGetLastError() { return std::exchange(last, cudaSuccess); }
cudaError_t cudaDriverGetVersion(int* version) { return *version = 12090, cudaSuccess; }

// ------------------------------------------------------------------------------------------ the device

cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
    CALL;
    return device ? told(cudaErrorInvalidDevice) : cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    static const std::map<int, int> known = {
        {cudaDevAttrMaxThreadsPerBlock, 1024},
        {cudaDevAttrMaxBlockDimX, 1024},
        {cudaDevAttrMaxBlockDimY, 1024},
        {cudaDevAttrMaxBlockDimZ, 64},
        {cudaDevAttrMaxGridDimX, 0x7fffffff},
        {cudaDevAttrMaxGridDimY, 65535},
        {cudaDevAttrMaxGridDimZ, 65535},
        {cudaDevAttrMaxSharedMemoryPerBlock, 48 << 10},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, 227 << 10},
        {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 228 << 10},
        {cudaDevAttrWarpSize, 32},
        {cudaDevAttrMaxRegistersPerBlock, 65536},
        {cudaDevAttrMaxRegistersPerMultiprocessor, 65536},
        {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
        {cudaDevAttrMultiProcessorCount, 132},
        {cudaDevAttrComputeCapabilityMajor, 9},
        {cudaDevAttrComputeCapabilityMinor, 0},
        {cudaDevAttrConcurrentKernels, 1},
        {cudaDevAttrUnifiedAddressing, 1},
        {cudaDevAttrL2CacheSize, 50 << 20},
    };
    if (device || attribute < 1 || attribute >= cudaDevAttrMax) return told(cudaErrorInvalidValue);
    auto found = known.find(attribute);
    *value = found == known.end() ? 0 : found->second;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* found, int device) {
    if (device) return told(cudaErrorInvalidDevice);
    *found = {};
    strcpy(found->name, "Fake H100");
    found->totalGlobalMem = memory::total();
    found->major = 9;
    found->multiProcessorCount = 132;
    found->warpSize = 32;
    found->maxThreadsPerBlock = 1024;
    found->sharedMemPerBlock = 48 << 10;
    found->sharedMemPerBlockOptin = 227 << 10;
    found->regsPerBlock = 65536;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
    CALL;
    CHECK(waits_for_all());
    run_all();
    return cudaSuccess;
}

// ---------------------------------------------------------------------------------------------- memory

cudaError_t cudaMalloc(void** pointer, size_t size) {
    CALL;
    CHECK(unsafe());
    return told(memory::take(pointer, size));
}

cudaError_t cudaFree(void* pointer) {
    CALL;
    if (!pointer) return cudaSuccess;
    CHECK(unsafe());
    run_all();
    return told(memory::give_back(pointer));
}

cudaError_t cudaHostAlloc(void** pointer, size_t size, unsigned) {
    CALL;
    CHECK(unsafe());
    *pointer = aligned_alloc(512, (size + 511) / 512 * 512);
    pinned[static_cast<char*>(*pointer)] = size;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
    CALL;
    if (!pinned.erase(static_cast<char*>(pointer))) return told(cudaErrorInvalidValue);
    run_all();
    ::free(pointer);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    CALL;
    *free = memory::free(), *total = memory::total();
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* pointer) {
    CALL;
    *found = {};
    found->device = -1;
    if (!memory::whole(pointer, 1)) return cudaSuccess;
    found->type = cudaMemoryTypeDevice;
    found->device = 0;
    found->devicePointer = const_cast<void*>(pointer);
    return cudaSuccess;
}

static bool is_pinned(const void* pointer) {
    auto found = pinned.upper_bound((char*)pointer);
    return found != pinned.begin() && (--found, pointer < found->first + found->second);
}

// A copy in the order of a stream. Memory of the host that is not pinned is read at once, and written before the call
// ends; pinned memory is used whenever the stream gets there.
static cudaError_t copy(void* to, const void* from, size_t size, cudaMemcpyKind kind, const StreamPointer& stream) {
    if (!stream) return cudaErrorInvalidResourceHandle;
    bool onto = memory::here(to), out_of = memory::here(from);
    cudaMemcpyKind found = onto ? out_of ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice
                                : out_of ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost;
    if (kind != cudaMemcpyDefault && kind != found) return cudaErrorInvalidValue;
    if ((onto && !memory::whole(to, size)) || (out_of && !memory::whole(from, size))) return cudaErrorInvalidValue;
    if (found == cudaMemcpyHostToDevice && !stream->capturing && !is_pinned(from)) {
        auto staged = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + size);
        return enqueue(stream, [=] { memcpy(to, staged->data(), size); });
    }
    cudaError_t error = enqueue(stream, [=] { memmove(to, from, size); });
    if (error == cudaSuccess && !onto && !stream->capturing && !is_pinned(to)) run(*stream);
    return error;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind kind) {
    CALL;
    CHECK(unsafe());
    CHECK(copy(to, from, size, kind, legacy));
    run(*legacy);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
    CALL;
    return told(copy(to, from, size, kind, stream_of(stream)));
}

static cudaError_t fill(void* to, int value, size_t size, const StreamPointer& stream) {
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (!memory::whole(to, size)) return cudaErrorInvalidValue;
    return enqueue(stream, [=] { memset(to, value, size); });
}

cudaError_t cudaMemset(void* to, int value, size_t size) {
    CALL;
    CHECK(unsafe());
    return told(fill(to, value, size, legacy));
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t stream) {
    CALL;
    return told(fill(to, value, size, stream_of(stream)));
}

// --------------------------------------------------------------------------------------------- streams

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* handle, unsigned flags) {
    CALL;
    auto stream = std::make_shared<Stream>();
    stream->blocking = !(flags & cudaStreamNonBlocking);
    *handle = reinterpret_cast<cudaStream_t>(stream.get());
    streams[*handle] = stream;
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* handle) { return cudaStreamCreateWithFlags(handle, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* handle, unsigned flags, int) {
    return cudaStreamCreateWithFlags(handle, flags);
}

#define STREAM(name, handle)                \
    CALL;                                   \
    StreamPointer name = stream_of(handle); \
    if (!name) return told(cudaErrorInvalidResourceHandle)

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    STREAM(stream, handle);
    if (stream == legacy) return told(cudaErrorInvalidResourceHandle);
    run(*stream);
    streams.erase(handle);
    return cudaSuccess;
}

cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned* flags) {
    STREAM(stream, handle);
    *flags = stream->blocking ? cudaStreamDefault : cudaStreamNonBlocking;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    STREAM(stream, handle);
    if (stream->capturing) return told(spoil(*stream));
    if (stream == legacy) CHECK(enqueue(legacy, [] {}));  // and so for all streams that it waits for
    run(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
    STREAM(stream, handle);
    if (stream->capturing) return told(spoil(*stream));
    return stream->done < stream->queued ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
    STREAM(stream, handle);
    if (!events.count(event)) return told(cudaErrorInvalidResourceHandle);
    auto& found = *reinterpret_cast<Event*>(event);
    if (!found.stream || (found.captured && found.stream == stream)) return cudaSuccess;
    if (found.captured) return told(cudaErrorNotSupported);  // a fork of a capture
    if (stream->capturing) return told(spoil(*stream, cudaErrorStreamCaptureIsolation));
    return told(wait_for(stream, found.stream, found.place));
}

// ---------------------------------------------------------------------------------------------- events

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* handle, unsigned) {
    CALL;
    *handle = reinterpret_cast<cudaEvent_t>(new Event);
    events.insert(*handle);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* handle) { return cudaEventCreateWithFlags(handle, 0); }

#define EVENT(name, handle)                                                 \
    CALL;                                                                   \
    if (!events.count(handle)) return told(cudaErrorInvalidResourceHandle); \
    Event& name = *reinterpret_cast<Event*>(handle)

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
    EVENT(event, handle);
    events.erase(handle);
    delete &event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle) {
    EVENT(event, handle);
    StreamPointer stream = stream_of(stream_handle);
    if (!stream) return told(cudaErrorInvalidResourceHandle);
    auto time = std::make_shared<double>(0);
    CHECK(enqueue(stream, [time] { *time = now(); }));
    event = {stream, stream->queued, stream->capturing, time};
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
    EVENT(event, handle);
    if (event.captured) return told(cudaErrorCapturedEvent);
    return event.stream && event.stream->done < event.place ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
    EVENT(event, handle);
    if (event.captured) return told(cudaErrorCapturedEvent);
    if (event.stream) run(*event.stream, event.place);
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t first, cudaEvent_t second) {
    EVENT(from, first);
    if (!events.count(second)) return told(cudaErrorInvalidResourceHandle);
    Event& to = *reinterpret_cast<Event*>(second);
    if (!from.stream || !to.stream) return told(cudaErrorInvalidResourceHandle);
    if (from.stream->done < from.place || to.stream->done < to.place) return told(cudaErrorNotReady);
    *milliseconds = float(*to.milliseconds - *from.milliseconds);
    return cudaSuccess;
}

// ---------------------------------------------------------------------------------------------- graphs

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
    STREAM(stream, handle);
    if (stream == legacy) return told(cudaErrorStreamCaptureUnsupported);
    if (stream->capturing) return told(cudaErrorIllegalState);
    stream->capturing = true, stream->spoiled = false, stream->mode = mode;
    stream->thread = std::this_thread::get_id();
    stream->captured.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
    STREAM(stream, handle);
    *status = !stream->capturing ? cudaStreamCaptureStatusNone
              : stream->spoiled  ? cudaStreamCaptureStatusInvalidated
                                 : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
    STREAM(stream, handle);
    *graph = nullptr;
    if (!stream->capturing) return told(cudaErrorIllegalState);
    bool here = stream->thread == std::this_thread::get_id();
    if (!here && stream->mode != cudaStreamCaptureModeRelaxed) return told(cudaErrorStreamCaptureWrongThread);
    stream->capturing = false;
    if (stream->spoiled) return told(cudaErrorStreamCaptureInvalidated);
    *graph = reinterpret_cast<cudaGraph_t>(new Tasks(std::move(stream->captured)));
    graphs.insert(*graph);
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* handle, cudaGraph_t graph, unsigned long long) {
    CALL;
    if (!graphs.count(graph)) return told(cudaErrorInvalidValue);
    auto made = std::make_shared<Executable>();
    made->tasks = *reinterpret_cast<Tasks*>(graph);
    *handle = reinterpret_cast<cudaGraphExec_t>(made.get());
    executables[*handle] = made;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    CALL;
    if (!graphs.erase(graph)) return told(cudaErrorInvalidValue);
    delete reinterpret_cast<Tasks*>(graph);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle) {
    CALL;
    return executables.erase(handle) ? cudaSuccess : told(cudaErrorInvalidValue);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream_handle) {
    STREAM(stream, stream_handle);
    auto found = executables.find(handle);
    if (found == executables.end()) return told(cudaErrorInvalidValue);
    if (stream->capturing) return told(cudaErrorNotSupported);  // a graph in a graph
    std::shared_ptr<Executable> graph = found->second;
    if (graph->stream && graph->stream != stream) CHECK(wait_for(stream, graph->stream, graph->place));
    CHECK(enqueue(stream, [graph] {
        for (const Task& task : graph->tasks) task();
    }));
    graph->stream = stream, graph->place = stream->queued;
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

}  // extern "C"
