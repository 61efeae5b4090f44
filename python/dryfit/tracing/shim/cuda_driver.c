/* Stands where libcuda.so.1 would: the few driver calls that PyTorch makes before it knows that no kernel will run. */
int cuInit(unsigned flags) { (void)flags; return 0; }
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { (void)device; *flags = 0; *active = 1; return 0; }
int cuGetErrorString(int error, const char **text) { (void)error; *text = "no driver here"; return 0; }
int cuGetErrorName(int error, const char **text) { (void)error; *text = "no driver here"; return 0; }
