#!/usr/bin/env python3
"""A folder as a zip archive whose bytes depend on its contents alone: one order, one time (1980, where zip's begin), modes as they stand. Usage: tools/zip_folder.py FOLDER ARCHIVE"""
import pathlib
import sys
import zipfile

folder = pathlib.Path(sys.argv[1])
with zipfile.ZipFile(sys.argv[2], "w") as archive:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        entry = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix())
        entry.create_system = 3  # Unix, which keeps modes
        entry.external_attr = (0o100000 | path.stat().st_mode & 0o777) << 16
        archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, 9)
