"""What happens inside the process that runs a captured script; `python -m dryfit.capture` and `dryfit.capture()` start it. docs/capture.md."""
