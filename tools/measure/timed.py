"""What torch.compile times on the GPU before it chooses: kernels of several configurations, products that may be padded. Needs torch."""


def watch(phases):
    """Returns a list that fills while the process runs: what was timed, after how many phases, in how many ways; of a kernel the bytes of what it writes in place,
    which each try clones or, where clones would be a new peak, puts back from the host; of a product whether it was padded then."""
    found = []
    try:
        from torch._dynamo.utils import counters
        from torch._inductor.fx_passes import pad_mm
        from torch._inductor.runtime.triton_heuristics import CachingAutotuner
    except ImportError:  # nothing is timed
        return found
    real_tune = CachingAutotuner.autotune_to_one_config

    def tune(self, *args, **kwargs):
        given = [*zip(self.fn.arg_names, args), *kwargs.items()]
        written = {name: value.nbytes for name, value in given if name in self.mutated_arg_names}
        found.append({"phase": len(phases), "kernel": self.fn.__name__, "ways": len(self.launchers), "written": written, "on_host": sorted(self.copy_args_to_cpu_if_needed(*args, **kwargs))})
        return real_tune(self, *args, **kwargs)

    CachingAutotuner.autotune_to_one_config = tune
    name = "_should_pad" if hasattr(pad_mm, "_should_pad") else "should_pad_bench"  # torch 2.11 · before
    real_pad = getattr(pad_mm, name)

    def should_pad(match, mat1, mat2, *rest, **named):
        before = counters["inductor"]["pad_mm_bench"]
        padded = real_pad(match, mat1, mat2, *rest, **named)
        if counters["inductor"]["pad_mm_bench"] != before:
            found.append({"phase": len(phases), "product": [[str(n) for n in m.shape] for m in (mat1, mat2)], "dtype": str(mat1.dtype), "padded": bool(padded)})
        return padded

    setattr(pad_mm, name, should_pad)
    return found


def bandwidth():
    """GB/s of the GPU's memory as Inductor works them out before it decides which products to time (pad_mm.py, is_mm_compute_bound: all where this fails), or what it failed with."""
    try:
        from torch._inductor.utils import get_gpu_dram_gbps
        return get_gpu_dram_gbps()
    except Exception as error:  # whatever it is, the run goes on
        return f"{type(error).__name__}: {error}"[:200]
