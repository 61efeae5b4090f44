"""What a process costs before it trains anything: context, then each library as it is first used. See job.py for how it is run."""
import sys
import threading

import torch

import job


def run(_configuration, meter):
    if not meter.on_gpu:
        return
    torch.empty(1, device="cuda")
    meter.stage("context")

    def product(dtype):
        a = torch.ones(256, 256, device="cuda", dtype=dtype)
        return a @ a

    for name, dtype in (("cublas bf16", torch.bfloat16), ("cublas fp32", torch.float32)):
        with meter.phase(name):
            product(dtype)
    with meter.phase("cublas in a second thread"):  # autograd's: a handle and a workspace of its own
        thread = threading.Thread(target=product, args=(torch.bfloat16,))
        thread.start()
        thread.join()
    with meter.phase("backward"):
        a = torch.ones(256, 256, device="cuda", requires_grad=True)
        (a @ a).sum().backward()
    with meter.phase("attention"):
        q = torch.ones(1, 2, 128, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()
    with meter.phase("triton"):
        torch.compile(lambda x: (x * 2).relu().sum())(torch.ones(4096, device="cuda"))
    if torch.cuda.get_device_capability() >= (8, 9):
        with meter.phase("scaled_mm"):
            x = torch.ones(256, 256, device="cuda").to(torch.float8_e4m3fn)
            one = torch.ones((), device="cuda")
            torch._scaled_mm(x, x.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    meter.extra["memory"] = list(torch.cuda.mem_get_info())


if __name__ == "__main__":
    sys.exit(job.main(run))
