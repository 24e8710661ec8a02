#!/usr/bin/env python3
"""Files of the safetensors library go through Bracket's reader and writer and come back bit for bit.

usage: safetensors_roundtrip.py PATH_OF_files_exchange
Exit status: 0 passed, 1 failed, 77 the safetensors or numpy module is missing.
"""
import os
import subprocess
import sys
import tempfile

try:
    import numpy
    import safetensors
    import safetensors.numpy
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)


def bits(array):
    return array.dtype.str, array.shape, array.tobytes()


def exchange(program, source, target):
    return subprocess.run([program, "safetensors", source, target], capture_output=True, text=True, check=False)


def main():
    program = sys.argv[1]
    rng = numpy.random.default_rng(7)
    nan_payload = numpy.array([0x7FC12345, 0xFF800001, 0x80000000, 1], dtype="<u4").view("<f4")
    tensors = {
        "layers.0.weight": rng.standard_normal((3, 5)).astype("<f4"),
        "layers.0.bias": rng.standard_normal(5).astype("<f4"),
        "special": nan_payload,
        "double": rng.standard_normal((2, 1, 7)),
        "step": numpy.array(-123456789012345, dtype="<i8"),
        "philox": numpy.array([2**64 - 1, 0, 1], dtype="<u8"),
        "bytes": numpy.arange(256, dtype="u1"),
        "empty": numpy.zeros((0, 4), dtype="<f4"),
        "umlaut \u00fc \"quoted\" \\ \n": numpy.ones(3, dtype="<f4"),
    }
    metadata = {"format": "pt", "note": "line\nbreak \u00e9 \"q\""}
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "in"), os.path.join(folder, "out")
        safetensors.numpy.save_file(tensors, source, metadata=metadata)
        run = exchange(program, source, target)
        assert run.returncode == 0, run.stderr
        back = safetensors.numpy.load_file(target)
        assert set(back) == set(tensors), set(back) ^ set(tensors)
        for name, array in tensors.items():
            assert bits(back[name]) == bits(array), name
        with safetensors.safe_open(target, framework="numpy") as opened:
            assert opened.metadata() == metadata, opened.metadata()

        # Where both order the tensors alike (one type of each size), even the bytes of the file are the same.
        for kinds in (["<f4"], ["<f4", "u1"], ["<f8", "<f4", "u1"], []):
            some = {f"t{i}{kind[1:]}": numpy.arange(i + 1).astype(kind) for i in range(3) for kind in kinds}
            safetensors.numpy.save_file(some, source, metadata={"k": "v"} if kinds else None)
            assert exchange(program, source, target).returncode == 0
            with open(source, "rb") as a, open(target, "rb") as b:
                assert a.read() == b.read(), kinds

        safetensors.numpy.save_file({"half": numpy.zeros(2, dtype="<f2")}, source)
        run = exchange(program, source, target)
        assert run.returncode == 7 and "'F16'" in run.stderr and source in run.stderr, run
    print(f"passed: safetensors {safetensors.__version__}, {len(tensors)} tensors")


if __name__ == "__main__":
    main()
