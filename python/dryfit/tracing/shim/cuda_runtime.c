/* Loaded in front of libcudart and libc10_cuda: answers what PyTorch's C++ guards ask of a device, as an H100 would unless told of
 * another, where there is no GPU. It launches nothing and holds no memory. Offsets follow struct cudaDeviceProp of CUDA 12 and 13. */
#include <string.h>

typedef int status;

static char gpu_name[256] = "NVIDIA H100 80GB HBM3";
static int major_version = 9, minor_version = 0, multiprocessors = 132;
static unsigned long memory_bytes = 85029158912UL;

/* Another GPU from now on. */
void dryfit_pretend(const char *name, int major, int minor, int processors, unsigned long memory) {
  strncpy(gpu_name, name, sizeof gpu_name - 1);
  major_version = major, minor_version = minor, multiprocessors = processors, memory_bytes = memory;
}

status cudaGetDevice(int *device) { *device = 0; return 0; }
status cudaSetDevice(int device) { (void)device; return 0; }
status cudaGetDeviceCount(int *count) { *count = 1; return 0; }
status cudaGetLastError(void) { return 0; }
status cudaPeekAtLastError(void) { return 0; }
status cudaDeviceSynchronize(void) { return 0; }
status cudaDriverGetVersion(int *version) { *version = 12080; return 0; }
status cudaRuntimeGetVersion(int *version) { *version = 12080; return 0; }
status cudaMemGetInfo(unsigned long *available, unsigned long *total) { *available = *total = memory_bytes; return 0; }
status cudaFuncGetAttributes(void *attributes, void *function) { (void)attributes; (void)function; return 0; }

status cudaStreamSynchronize(void *stream) { (void)stream; return 0; }
status cudaStreamQuery(void *stream) { (void)stream; return 0; }
status cudaStreamIsCapturing(void *stream, int *capturing) { (void)stream; *capturing = 0; return 0; }
status cudaStreamCreateWithPriority(void **stream, unsigned flags, int priority) { (void)flags; (void)priority; *stream = 0; return 0; }
status cudaStreamWaitEvent(void *stream, void *event, unsigned flags) { (void)stream; (void)event; (void)flags; return 0; }
status cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return 0; }

status cudaEventCreateWithFlags(void **event, unsigned flags) { (void)flags; *event = (void *)1; return 0; }
status cudaEventRecord(void *event, void *stream) { (void)event; (void)stream; return 0; }
status cudaEventRecordWithFlags(void *event, void *stream, unsigned flags) { (void)event; (void)stream; (void)flags; return 0; }
status cudaEventQuery(void *event) { (void)event; return 0; }
status cudaEventDestroy(void *event) { (void)event; return 0; }
status cudaEventElapsedTime(float *ms, void *from, void *to) { (void)from; (void)to; *ms = 0; return 0; }
status cudaEventSynchronize(void *event) { (void)event; return 0; }

/* attributes: 10 warp size, 16 multiprocessors, 75 and 76 compute capability */
status cudaDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  *value = attribute == 10 ? 32 : attribute == 16 ? multiprocessors : attribute == 75 ? major_version : attribute == 76 ? minor_version : 0;
  return 0;
}

static void put_int(char *at, int value) { memcpy(at, &value, sizeof value); }
static void put_long(char *at, unsigned long value) { memcpy(at, &value, sizeof value); }

static status put_properties(char *p, size_t size, size_t processors) {
  memset(p, 0, size);
  memcpy(p, gpu_name, sizeof gpu_name);
  put_long(p + 288, memory_bytes);
  put_long(p + 296, 49152);       /* shared memory per block */
  put_int(p + 304, 65536);        /* registers per block */
  put_int(p + 308, 32);           /* warp size */
  put_long(p + 312, 2147483647);  /* pitch */
  put_int(p + 320, 1024);         /* threads per block */
  put_int(p + 324, 1024);         /* block dimensions */
  put_int(p + 328, 1024);
  put_int(p + 332, 64);
  put_int(p + 336, 2147483647);   /* grid dimensions */
  put_int(p + 340, 65535);
  put_int(p + 344, 65535);
  put_long(p + 352, 65536);       /* constant memory */
  put_int(p + 360, major_version);            /* compute capability */
  put_int(p + 364, minor_version);
  put_int(p + processors, multiprocessors);
  return 0;
}

/* CUDA 12, with the clock rate in kHz, and 13, whose structure has none. */
status cudaGetDeviceProperties_v2(char *p, int device) {
  (void)device;
  put_properties(p, 1032, 388);
  put_int(p + 348, 1980000);
  return 0;
}
status cudaGetDeviceProperties(char *p, int device) {
  (void)device;
  return put_properties(p, 1008, 384);
}

/* c10::cuda's own device functions, by their C++ names */
status _ZN4c104cuda14MaybeSetDeviceEa(signed char device) { (void)device; return 0; }
status _ZN4c104cuda9SetDeviceEab(signed char device, _Bool force) { (void)device; (void)force; return 0; }
status _ZN4c104cuda9SetDeviceEa(signed char device) { (void)device; return 0; }
signed char _ZN4c104cuda14ExchangeDeviceEa(signed char device) { (void)device; return 0; }
signed char _ZN4c104cuda19MaybeExchangeDeviceEa(signed char device) { (void)device; return 0; }
_Bool _ZN4c104cuda17hasPrimaryContextEa(signed char device) { (void)device; return 1; }
