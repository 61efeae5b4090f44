/* dryfit: will a training run fit, and where does its memory go? C ABI: JSON in, JSON out.
 * Pure by default: no file, GPU, environment or network is touched, nothing is printed, nothing is kept between calls; any thread may call.
 * C++: dryfit.hpp. What a reply holds: docs/schema. Every command and flag: {"command":"help"}. */
#ifndef DRYFIT_H
#define DRYFIT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__wasm__)
#define DRYFIT_API __attribute__((visibility("default"), used))
#elif defined(_WIN32) && defined(DRYFIT_EXPORTS) /* while the library itself is compiled */
#define DRYFIT_API __declspec(dllexport)
#elif defined(_WIN32)
#define DRYFIT_API
#elif defined(__GNUC__)
#define DRYFIT_API __attribute__((visibility("default")))
#else
#define DRYFIT_API
#endif

/* Exit statuses of the command line. */
enum { DRYFIT_FITS = 0, DRYFIT_DOES_NOT_FIT = 1, DRYFIT_BAD_INPUT = 2, DRYFIT_INTERNAL = 70 };

/* Answers one request: `size` bytes of UTF-8 JSON, either
 *   {"command": "check", "args": {"depth": 26, "device-batch-size": 32, "gpu": "h100", "gpus": 8, "fp8": true}}
 * with flags by their names on the command line, or
 *   {"argv": ["check", "--depth", "26", "--", "torchrun", "..."]}
 * Further fields:
 *   "paste"     a training command as text or words (what stands after -- on the command line)
 *   "operands"  words that are not flags: {"command": "list", "operands": ["gpus"]}
 *   "input"     text that "-" reads: {"command": "doctor", "operands": ["-"], "input": "torch.OutOfMemoryError: ..."}
 *   "text"      true: the screen for people instead of JSON
 *   "local"     true: may look at this machine (GPUs, environment variables, calibration, the files that the request names)
 * Returns the bytes that `dryfit ... --json` prints, ending in a NUL; an error is {"schema_version":1,"error":{code,message,hint,where}}.
 * The caller gives them back with dryfit_free. NULL only where memory ran out. Sets *status (may be NULL) to one of the statuses above. */
DRYFIT_API char* dryfit_call(const char* request, size_t size, int* status);

/* NULL is allowed. */
DRYFIT_API void dryfit_free(char* reply);

/* "0.1.0"; static. */
DRYFIT_API const char* dryfit_version(void);

#ifdef __cplusplus
}
#endif

#endif
