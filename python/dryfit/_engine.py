"""The engine: the library beside this file, by its C ABI (include/dryfit/dryfit.h). It knows nothing of Python, so one serves every version."""
from __future__ import annotations

import ctypes
import os

_library = ctypes.CDLL(os.path.join(os.path.dirname(os.path.abspath(__file__)), "libdryfit.dll" if os.name == "nt" else "libdryfit.so"))
_library.dryfit_call.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)]
_library.dryfit_call.restype = ctypes.c_void_p  # not c_char_p, whose address would be lost before it is freed
_library.dryfit_free.argtypes = [ctypes.c_void_p]
_library.dryfit_free.restype = None
_library.dryfit_version.restype = ctypes.c_char_p
_library.dryfit_main.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]

__version__: str = _library.dryfit_version().decode()


def call(request: str) -> tuple[int, bytes]:
    """One request as dryfit_call documents it. Gives (status, JSON); no bytes only where memory ran out. Other threads of Python run meanwhile."""
    text, status = request.encode(), ctypes.c_int()
    reply = _library.dryfit_call(text, len(text), ctypes.byref(status))
    try:
        return status.value, ctypes.string_at(reply) if reply else b""
    finally:
        _library.dryfit_free(reply)


def run(words: list[str]) -> int:
    """The program's main: words without its own name; gives the exit status."""
    encoded = [os.fsencode(word) for word in words]
    return _library.dryfit_main(len(encoded), (ctypes.c_char_p * len(encoded))(*encoded))
